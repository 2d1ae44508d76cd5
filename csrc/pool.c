/*
 * pool.c: where threads wait for runs whose lines are to be delivered (L6).
 *
 * One lock, the pool's, guards all queues of a runner: it is held for pointer updates, never while
 * bytes are read, scanned, or handed to Python. The consumer side of a queue (batch.c) has one owner at
 * a time. A queue in the list and one in a thread's hands keep their run, so a run that ends needs no
 * lock to leave: a forked child may free it.
 */
#include "internal.h"

#include <stdlib.h>

as_pool *as_pool_new(void) {
    as_pool *pool = calloc(1, sizeof *pool);
    if (!pool || pthread_mutex_init(&pool->lock, NULL) != 0) {
        free(pool);
        return NULL;
    }
    if (pthread_cond_init(&pool->ready, NULL) != 0) {
        (void)pthread_mutex_destroy(&pool->lock);
        free(pool);
        return NULL;
    }
    return pool;
}

void as_pool_free(as_pool *pool) {
    if (pool) {
        (void)pthread_cond_destroy(&pool->ready);
        (void)pthread_mutex_destroy(&pool->lock);
        free(pool);
    }
}

void as_pool_close(as_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    pthread_cond_broadcast(&pool->ready);
    pthread_mutex_unlock(&pool->lock);
}

/* ---- the queues with something to do; lock held ---- */

/* The list's hold on the run comes with it. */
static void append(as_queue *queue) {
    as_pool *pool = queue->pool;
    if (queue->ready || queue->owned || queue->abandoned) {
        return;
    }
    queue->ready = true;
    as_run_retain(queue->run);
    queue->next = NULL;
    if (pool->last) {
        pool->last->next = queue;
    } else {
        pool->first = queue;
    }
    pool->last = queue;
}

void as_pool_put(as_queue *queue) {
    append(queue);
    if (queue->ready && queue->pool->waiting) {
        pthread_cond_signal(&queue->pool->ready);
    }
}

bool as_pool_remove(as_queue *queue) {
    as_pool *pool = queue->pool;
    as_queue *before = NULL;
    for (as_queue *q = pool->first; q; before = q, q = q->next) {
        if (q == queue) {
            *(before ? &before->next : &pool->first) = q->next;
            pool->last = pool->last == q ? before : pool->last;
            queue->ready = false;
            return true;
        }
    }
    return false;
}

/* ---- the threads ---- */

/* Ends the batch that a thread held and puts its queue behind the others: runs take turns. */
static void give_back(as_batch *batch) {
    as_run *run = batch->run;
    as_queue *queue = as_run_queue(run);
    as_batch_end(batch, queue);
    queue->owned = false;
    batch->run = NULL;
    bool left = batch->carried && queue->carry_size[batch->stream] > 0; /* maybe a whole line */
    if (queue->span_count || left || (queue->final && !queue->delivered)) {
        append(queue);
    }
    as_run_release(run);
}

int as_pool_next(as_pool *pool, as_batch *batch) {
    pthread_mutex_lock(&pool->lock);
    if (batch->run) {
        give_back(batch);
    }
    for (;;) {
        while (!pool->first && !pool->closed && pool->waiting < AS_SPARE_THREADS) {
            pool->waiting++;
            pthread_cond_wait(&pool->ready, &pool->lock);
            pool->waiting--;
        }
        as_queue *queue = pool->first;
        if (!queue) {
            pthread_mutex_unlock(&pool->lock);
            return AS_CLOSED;
        }
        (void)as_pool_remove(queue);
        if (pool->first) {
            pthread_cond_signal(&pool->ready); /* the next one is for another thread */
        }
        queue->owned = true;
        if (as_batch_take(batch, queue)) {
            batch->run = queue->run;
            batch->key = queue->limits.key;
            batch->waiting = pool->waiting;
            batch->taken_at = queue->progress_at = pool->progress_at = as_monotonic();
            pthread_mutex_unlock(&pool->lock);
            as_batch_clean(batch);
            return 0;
        }
        queue->owned = false; /* what it holds is no whole line: the next commit makes it ready */
        if (queue->waiting && !queue->final) {
            queue->waiting = false; /* and that commit needs room, of which there may be little */
            as_wake(queue->wake_fd);
        }
        as_run_release(queue->run);
    }
}
