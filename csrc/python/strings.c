/*
 * strings.c: lines as Python's strings, and an environment as bytes, in an extension module of its own,
 * `agentscripts._strings`: what cffi calls holds no GIL and makes no objects.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <string.h>

/* ---- lines ----
 *
 * str.split looks at one character after the other, which takes as long as all else that is done for
 * a line of 80 bytes; memchr looks at some dozens at a time. Most output is ASCII, which needs no
 * decoder: that one takes a third of the time.
 */

static PyObject *decode(const char *p, size_t n, bool ascii) {
    if (!ascii) {
        return PyUnicode_DecodeUTF8(p, (Py_ssize_t)n, "replace");
    }
    PyObject *text = PyUnicode_New((Py_ssize_t)n, 0x7F);
    if (text) {
        memcpy(PyUnicode_DATA(text), p, n);
    }
    return text;
}

static PyObject *split(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer view;
    Py_ssize_t count;
    int ascii;
    if (!PyArg_ParseTuple(args, "y*np", &view, &count, &ascii)) {
        return NULL;
    }
    const char *p = view.len ? view.buf : "";
    size_t left = (size_t)view.len;
    PyObject *lines = PyList_New(count);
    for (Py_ssize_t i = 0; lines && i < count; i++) {
        const char *newline = i < count - 1 ? memchr(p, '\n', left) : NULL;
        size_t size = newline ? (size_t)(newline - p) : left;
        PyObject *line = decode(p, size, ascii);
        if (line) {
            PyList_SET_ITEM(lines, i, line);
        } else {
            Py_CLEAR(lines);
        }
        size += newline != NULL;
        p += size;
        left -= size;
    }
    PyBuffer_Release(&view);
    return lines;
}

/* ---- the environment ----
 *
 * Each script has its own, of some dozens of variables: to code them takes Python longer than all else
 * that it does for the start.
 */

enum { USUAL = 4096 }; /* bytes of an environment */

typedef struct {
    char *bytes;
    size_t size, room;
} buffer;

/* Room for so many bytes more; NULL with a Python error. */
static char *reserve(buffer *out, size_t size) {
    if (size > out->room - out->size) {
        size_t room = 2 * (out->size + size);
        char *larger = PyMem_Realloc(out->bytes, room);
        if (!larger) {
            PyErr_NoMemory();
            return NULL;
        }
        out->bytes = larger;
        out->room = room;
    }
    return out->bytes + out->size;
}

/* NULL for lone surrogates, and when there is no memory: what comes then tells it again. */
static const char *utf8(PyObject *text, Py_ssize_t *size) {
    const char *p = PyUnicode_AsUTF8AndSize(text, size);
    if (!p) {
        PyErr_Clear();
    }
    return p;
}

/* With bytes that are no UTF-8, which Python holds as lone surrogates. */
static bool append_odd(buffer *out, PyObject *name, PyObject *value) {
    char *bytes, *place = NULL;
    Py_ssize_t size;
    PyObject *text = PyUnicode_FromFormat("%U=%U", name, value), *coded = NULL;
    if (text) {
        coded = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    }
    if (coded && PyBytes_AsStringAndSize(coded, &bytes, &size) == 0) {
        place = reserve(out, (size_t)size + 1);
    }
    if (place) {
        memcpy(place, bytes, (size_t)size + 1); /* with its NUL */
        out->size += (size_t)size + 1;
    }
    Py_XDECREF(coded);
    Py_XDECREF(text);
    return place != NULL;
}

static bool append_variable(buffer *out, PyObject *name, PyObject *value) {
    Py_ssize_t name_size, value_size = 0;
    const char *name_bytes = utf8(name, &name_size);
    const char *value_bytes = name_bytes ? utf8(value, &value_size) : NULL;
    if (!value_bytes) {
        return append_odd(out, name, value);
    }
    size_t size = (size_t)name_size + (size_t)value_size + 2;
    char *place = reserve(out, size);
    if (place) {
        memcpy(place, name_bytes, (size_t)name_size);
        place[name_size] = '=';
        memcpy(place + name_size + 1, value_bytes, (size_t)value_size + 1);
        out->size += size;
    }
    return place != NULL;
}

/* What execve would take for something else is refused. */
static bool append_checked(buffer *out, PyObject *name, PyObject *value) {
    if (!PyUnicode_Check(name) || !PyUnicode_Check(value)) {
        PyObject *type = (PyObject *)Py_TYPE(PyUnicode_Check(name) ? value : name);
        PyErr_Format(PyExc_TypeError, "environment variable %R is %R, expected str", name, type);
        return false;
    }
    if (PyUnicode_FindChar(name, '=', 0, PyUnicode_GetLength(name), 1) >= 0) {
        PyErr_Format(PyExc_ValueError, "environment variable %R has a \"=\" in its name", name);
        return false;
    }
    size_t begin = out->size;
    if (!append_variable(out, name, value)) {
        return false;
    }
    if (memchr(out->bytes + begin, '\0', out->size - begin - 1)) {
        PyErr_Format(PyExc_ValueError, "environment variable %R holds a NUL", name);
        return false;
    }
    return true;
}

static PyObject *environment(PyObject *module, PyObject *env) {
    (void)module;
    PyObject *name, *value, *result = NULL;
    if (!PyDict_Check(env)) {
        return PyErr_Format(PyExc_TypeError, "env is %R, expected a dict",
                            (PyObject *)Py_TYPE(env));
    }
    buffer out = {0};
    bool done = reserve(&out, USUAL) != NULL;
    for (Py_ssize_t at = 0; done && PyDict_Next(env, &at, &name, &value);) {
        done = append_checked(&out, name, value);
    }
    if (done) {
        result = PyBytes_FromStringAndSize(out.bytes, (Py_ssize_t)out.size);
    }
    PyMem_Free(out.bytes);
    return result;
}

static PyMethodDef methods[] = {
    {"environment", environment, METH_O,
     "environment($module, env, /)\n--\n\n"
     "Return what execve takes, each variable as UTF-8 with a NUL at its end.\n"
     "Nothing else may change the dict meanwhile. Raises ValueError or TypeError."},
    {"split", split, METH_VARARGS,
     "split($module, data, count, ascii, /)\n--\n\n"
     "Return the lines of UTF-8 text, as str(data, 'utf-8', 'replace').split(\"\\n\") does, only "
     "faster.\n"
     "count: how many there are. ascii: whether it is known to be ASCII; unchecked."},
    {0},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "agentscripts._strings",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__strings(void) { return PyModuleDef_Init(&definition); }
