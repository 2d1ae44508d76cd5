/*
 * strings.c: lines as Python's strings, in an extension module of its own, `agentscripts._strings`:
 * what cffi calls holds no GIL and makes no objects.
 *
 * str.split looks at one character after the other, which takes as long as all else that is done for
 * a line of 80 bytes; memchr looks at some dozens at a time.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <string.h>

/* Appends the text up to `end`; false with a Python error. */
static bool append(PyObject *lines, const char *p, const char *end) {
    PyObject *line = PyUnicode_DecodeUTF8(p, end - p, "replace");
    bool done = line && PyList_Append(lines, line) == 0;
    Py_XDECREF(line);
    return done;
}

static bool append_all(PyObject *lines, const char *p, const char *end) {
    const char *newline;
    while ((newline = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        if (!append(lines, p, newline)) {
            return false;
        }
        p = newline + 1;
    }
    return append(lines, p, end);
}

static PyObject *split(PyObject *module, PyObject *data) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    const char *text = view.len ? view.buf : "";
    PyObject *lines = PyList_New(0);
    if (lines && !append_all(lines, text, text + view.len)) {
        Py_CLEAR(lines);
    }
    PyBuffer_Release(&view);
    return lines;
}

static PyMethodDef methods[] = {
    {"split", split, METH_O,
     "split($module, data, /)\n--\n\n"
     "Return what is between the newlines of UTF-8 text, as str(data, 'utf-8', 'replace') split\n"
     "at each \"\\n\" does, only faster."},
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
