/* Pixels to quantised coefficients in one pass over an image; `coefficients.py` says what it computes.
 *
 * Every product and sum below is exact in float32 (docs/decisions/0001), so vectors, fused multiply-add and
 * the order of summation cannot change a byte.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define TILE 128 /* columns, that is pixels of every phase, worked on at once: they stay in the cache */
#define GROUP 6   /* bands worked on at once: their sums stay in registers */
#define MAX_PHASES 36
#define INLINE static inline __attribute__((always_inline))

/* Adding it leaves no room for a fraction: the sum is rounded to an integer, ties to even, like rint. */
static const float ROUND = 12582912.0f; /* 3 * 2**22 */

typedef struct {
    int grid, plane, phases, bands;
    int sums;  /* number of bands, the first, that take sums of mirrored phases; the others differences; -1: phases */
    int again; /* number of these, the first, that take sums of mirrored sums; the others differences; -1: sums */
    int terms; /* of a row of weights: phases, or half of them; rows that are folded again use half of that */
    const float *color;    /* (3, 4) */
    const float *weights;  /* (3, bands, terms) */
    const int32_t *places; /* (bands): which band of the output each row of weights makes */
    int8_t *out;           /* band b, channel c at out + b * stride + c * plane * plane */
    Py_ssize_t stride;
    int64_t *counts;       /* (3, bands of the output, 3): clipped, sum, sum of squares */
} Job;

#define WIDTH 4
#define VEC vec4
#define NAMED(name) name##_4
#include "_kernel_run.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CHOICE 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define WIDTH 8
#define VEC vec8
#define NAMED(name) name##_8
#include "_kernel_run.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define WIDTH 16
#define VEC vec16
#define NAMED(name) name##_16
#include "_kernel_run.h"
#pragma GCC pop_options
#endif

static void run(const Job *job, const uint32_t *pixels)
{
#ifdef CHOICE
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        run_16(job, pixels);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        run_8(job, pixels);
        return;
    }
#endif
    run_4(job, pixels);
}

/* The job that the buffers describe, or an error set. */
static int describe(Job *job, const Py_buffer *pixels, const Py_buffer *out, const Py_buffer *color,
                    const Py_buffer *weights, const Py_buffer *places, const Py_buffer *counts)
{
    const char *wrong = NULL;
    if (job->grid < 1 || job->grid * job->grid > MAX_PHASES)
        wrong = "grid is out of range";
    else if (pixels->ndim != 3 || pixels->shape[0] != pixels->shape[1] || pixels->shape[2] != 4 ||
             pixels->itemsize != 1 || pixels->shape[0] < job->grid || pixels->shape[0] % job->grid ||
             pixels->shape[0] > 1 << 15)
        wrong = "pixels are not uint8 (side, side, 4), the side a multiple of the grid";
    if (!wrong) {
        job->phases = job->grid * job->grid;
        job->plane = (int)pixels->shape[0] / job->grid;
        const Py_ssize_t columns = (Py_ssize_t)job->plane * job->plane;
        if (out->ndim != 3 || out->itemsize != 1 || out->shape[0] < 1 || out->shape[0] > MAX_PHASES ||
            out->shape[1] != 3 || out->shape[2] != columns || out->strides[1] != columns || out->strides[2] != 1)
            wrong = "out is not int8 (bands, 3, plane * plane), dense within a band";
    }
    if (!wrong) {
        job->bands = (int)out->shape[0];
        job->terms = job->sums < 0 ? job->phases : job->phases / 2;
        if (job->sums < -1 || job->sums > job->bands || (job->sums >= 0 && job->phases % 2))
            wrong = "sums is out of range";
        else if (job->again < -1 || job->again > job->sums || (job->again >= 0 && job->terms % 2))
            wrong = "again is out of range";
        else if (color->len != 12 * (Py_ssize_t)sizeof(float))
            wrong = "color is not float32 (3, 4)";
        else if (weights->len != 3 * (Py_ssize_t)job->bands * job->terms * (Py_ssize_t)sizeof(float))
            wrong = "weights are not float32 (3, bands, terms)";
        else if (places->len != job->bands * (Py_ssize_t)sizeof(int32_t))
            wrong = "places are not int32 (bands,)";
        else if (counts->len != 9 * job->bands * (Py_ssize_t)sizeof(int64_t))
            wrong = "counts are not int64 (3, bands, 3)";
    }
    for (int b = 0; !wrong && b < job->bands; b++) {
        const int place = ((const int32_t *)places->buf)[b];
        if (place < 0 || place >= job->bands)
            wrong = "a place is out of range";
    }
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return 0;
    }
    job->out = out->buf;
    job->stride = out->strides[0];
    job->color = color->buf;
    job->weights = weights->buf;
    job->places = places->buf;
    job->counts = counts->buf;
    return 1;
}

static PyObject *split(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer buffers[6]; /* pixels, out, color, weights, places, counts */
    PyObject *objects[6];
    static const int flags[6] = {PyBUF_ND, PyBUF_STRIDES | PyBUF_WRITABLE, PyBUF_SIMPLE, PyBUF_SIMPLE, PyBUF_SIMPLE,
                                 PyBUF_WRITABLE};
    Job job = {0};
    int acquired = 0, done = 0;
    if (!PyArg_ParseTuple(args, "OOOOOOiii", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4],
                          &objects[5], &job.grid, &job.sums, &job.again))
        return NULL;
    while (acquired < 6 && PyObject_GetBuffer(objects[acquired], &buffers[acquired], flags[acquired]) == 0)
        acquired++;
    if (acquired == 6 && describe(&job, &buffers[0], &buffers[1], &buffers[2], &buffers[3], &buffers[4], &buffers[5])) {
        Py_BEGIN_ALLOW_THREADS
        run(&job, buffers[0].buf);
        Py_END_ALLOW_THREADS
        done = 1;
    }
    while (acquired > 0)
        PyBuffer_Release(&buffers[--acquired]);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"split", split, METH_VARARGS, "split(pixels, out, color, weights, places, counts, grid, sums, again): see _kernel.pyi"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&module);
}
