/* Compress quantised coefficients to a DEFLATE stream (RFC 1951) that any inflate reads; docs/decisions/0006 says why.
 *
 * It looks only for what such data has: bytes of very unequal frequency, and runs of one byte. A run starts where
 * eight bytes in a row, at a multiple of eight bytes, equal the byte before them. Huffman codes are made for groups of
 * planes: a plane starts a new group if codes of its own save more than BLOCK_COST. Only integers decide, so the bytes
 * are the same on every machine.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if PY_BIG_ENDIAN
#error "byte order: big-endian machines use the other compressor"
#endif

enum {
    LITERALS = 256,
    END = 256, /* the symbol that ends a block */
    SYMBOLS = 286,
    LONGEST = 258, /* bytes of the longest run that one symbol stands for */
    LIMIT = 12,    /* bits of the longest code: four fit into a word, and one look-up of our inflate reads each */
    HEADER = 400   /* bytes: more than the description of the codes of a block takes */
};

/* Bits that a block has to save: for its own description, and for the time to build the reader's tables. Another
   number makes other bytes. */
#define BLOCK_COST 4096

static const uint16_t RUN_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                      31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t RUN_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                      2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint8_t LENGTH_ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static uint8_t run_code[LONGEST + 1]; /* length of a run -> its code, less 257 */

/* A number of literals from the input, then a run of the last of them; a run of 0 ends a plane. */
typedef struct {
    uint32_t literals, run;
} Step;

typedef struct {
    uint32_t counts[SYMBOLS];
    const uint8_t *data;
    Step *first, *last; /* last: one after the end */
} Group;

typedef struct {
    uint8_t *next;
    uint64_t bits;    /* not written yet, the first in the lowest place */
    unsigned pending; /* how many: at most 7 between two calls */
} Writer;

static void make_tables(void)
{
    for (int code = 0; code < 29; code++)
        for (int run = RUN_BASE[code]; run <= LONGEST && (code == 28 || run < RUN_BASE[code + 1]); run++)
            run_code[run] = (uint8_t)code;
}

/* Return 256 * log2(x) for x > 0, with an error of about 3: the exponent and mantissa of x as a float, which is exact,
   and a parabola for the mantissa. Plain arithmetic, so that a compiler can use vectors. */
static inline uint32_t log2_256(uint32_t x)
{
    const float as_float = (float)(int32_t)x;
    uint32_t bits;
    memcpy(&bits, &as_float, 4);
    const uint32_t straight = (bits >> 15) - (127u << 8), mantissa = straight & 255;
    return straight + (mantissa * (256 - mantissa) * 89 >> 16);
}

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default"))) /* chosen by the processor at run time */
#else
#define CLONES
#endif

/* Return the least bits that literals and runs with these counts take with codes of their own. */
CLONES static uint64_t cost(const uint32_t *counts)
{
    uint32_t total = 0;
    uint64_t saved = 0;
    for (int s = 0; s < SYMBOLS; s++) {
        total += counts[s];
        saved += (uint64_t)counts[s] * log2_256(counts[s]);
    }
    return ((uint64_t)total * log2_256(total) - saved) >> 8;
}

/* Compute the lengths of a Huffman code of `limit` bits at most; 0 for symbols that do not occur. */
static void code_lengths(const uint32_t *counts, int symbols, int limit, uint8_t *lengths)
{
    int order[SYMBOLS], used = 0;
    memset(lengths, 0, (size_t)symbols);
    for (int s = 0; s < symbols; s++) { /* sort by count, then by symbol; by insertion, as there are few */
        int at = used;
        if (!counts[s])
            continue;
        for (; at > 0 && counts[order[at - 1]] > counts[s]; at--)
            order[at] = order[at - 1];
        order[at] = s;
        used++;
    }
    if (used < 2) {
        if (used)
            lengths[order[0]] = 1;
        return;
    }
    uint32_t weight[2 * SYMBOLS];
    int parent[2 * SYMBOLS], depth[2 * SYMBOLS], of_length[32] = {0};
    for (int i = 0; i < used; i++)
        weight[i] = counts[order[i]];
    for (int leaf = 0, inner = used, next = used; next < 2 * used - 1; next++) {
        weight[next] = 0;
        for (int k = 0; k < 2; k++) {
            const int least = leaf < used && (inner == next || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
            weight[next] += weight[least];
            parent[least] = next;
        }
    }
    depth[2 * used - 2] = 0;
    for (int i = 2 * used - 3; i >= 0; i--) {
        depth[i] = depth[parent[i]] + 1;
        if (i < used)
            of_length[depth[i] < limit ? depth[i] : limit]++;
    }
    /* cutting to the limit overfills the code: lengthen the longest codes below the limit until it fits (Kraft) */
    uint32_t filled = 0;
    for (int length = 1; length <= limit; length++)
        filled += (uint32_t)of_length[length] << (limit - length);
    for (; filled > 1u << limit; filled--) {
        int length = limit - 1;
        while (!of_length[length])
            length--;
        of_length[length]--;
        of_length[length + 1] += 2;
        of_length[limit]--;
    }
    for (int length = limit, i = 0; length >= 1; length--)
        for (int k = 0; k < of_length[length]; k++)
            lengths[order[i++]] = (uint8_t)length;
}

/* Compute the canonical codes for these lengths, the first bit in the lowest place. */
static void assign_codes(const uint8_t *lengths, int symbols, uint32_t *codes)
{
    uint32_t of_length[16] = {0}, next[16], code = 0;
    for (int s = 0; s < symbols; s++)
        of_length[lengths[s]]++;
    of_length[0] = 0;
    for (int length = 1; length < 16; length++)
        next[length] = code = (code + of_length[length - 1]) << 1;
    for (int s = 0; s < symbols; s++) {
        uint32_t forward = lengths[s] ? next[lengths[s]]++ : 0;
        codes[s] = 0;
        for (int bit = 0; bit < lengths[s]; bit++, forward >>= 1)
            codes[s] = codes[s] << 1 | (forward & 1);
    }
}

/* Write at most 56 bits; eight bytes after `next` are overwritten. */
static inline void put(Writer *w, uint64_t bits, unsigned count)
{
    w->bits |= bits << w->pending;
    w->pending += count;
    memcpy(w->next, &w->bits, 8);
    w->next += w->pending >> 3;
    w->bits >>= w->pending & ~7u;
    w->pending &= 7;
}

/* Write the head of a block: the code lengths of its symbols, and of its one distance. */
static void put_header(Writer *w, uint8_t *lengths, int final)
{
    int used = SYMBOLS, count = 0, described = 19;
    while (used > END + 1 && !lengths[used - 1])
        used--;
    lengths[used] = 1; /* distance 1 */
    uint8_t symbols[SYMBOLS + 1], extra[SYMBOLS + 1], of_symbols[19];
    uint32_t counts[19] = {0}, codes[19];
    for (int i = 0, run; i <= used; i += run) {
        const uint8_t length = lengths[i];
        for (run = 1; i + run <= used && lengths[i + run] == length; run++)
            ;
        if (length == 0 && run >= 3) {
            run = run < 138 ? run : 138;
            symbols[count] = run < 11 ? 17 : 18;
            extra[count] = (uint8_t)(run - (run < 11 ? 3 : 11));
        } else if (i && length == lengths[i - 1] && run >= 3) {
            run = run < 6 ? run : 6;
            symbols[count] = 16;
            extra[count] = (uint8_t)(run - 3);
        } else {
            run = 1;
            symbols[count] = length;
        }
        counts[symbols[count++]]++;
    }
    code_lengths(counts, 19, 7, of_symbols);
    assign_codes(of_symbols, 19, codes);
    while (described > 4 && !of_symbols[LENGTH_ORDER[described - 1]])
        described--;
    put(w, (uint64_t)(final | 2 << 1 | (used - 257) << 3 | (described - 4) << 13), 17);
    for (int i = 0; i < described; i++)
        put(w, of_symbols[LENGTH_ORDER[i]], 3);
    for (int i = 0; i < count; i++) {
        put(w, codes[symbols[i]], of_symbols[symbols[i]]);
        if (symbols[i] >= 16)
            put(w, extra[i], symbols[i] == 16 ? 2 : symbols[i] == 17 ? 3 : 7);
    }
}

static void put_block(Writer *writer, Group *group, int final)
{
    uint8_t lengths[SYMBOLS + 1];
    uint32_t codes[SYMBOLS];
    group->counts[END] = 1;
    code_lengths(group->counts, SYMBOLS, LIMIT, lengths);
    assign_codes(lengths, SYMBOLS, codes);
    put_header(writer, lengths, final);
    Writer w = *writer; /* in registers */
    const uint8_t *data = group->data;
    for (const Step *step = group->first; step < group->last; step++) {
        const uint8_t *end = data + step->literals;
        for (; end - data >= 4; data += 4) { /* in pairs: a shorter chain of shifts */
            const unsigned a = lengths[data[0]], b = lengths[data[1]], c = lengths[data[2]], d = lengths[data[3]];
            const uint64_t ab = codes[data[0]] | (uint64_t)codes[data[1]] << a;
            const uint64_t cd = codes[data[2]] | (uint64_t)codes[data[3]] << c;
            put(&w, ab | cd << (a + b), a + b + c + d);
        }
        for (; data < end; data++)
            put(&w, codes[*data], lengths[*data]);
        if (step->run) {
            const int code = run_code[step->run];
            const uint64_t extra = step->run - RUN_BASE[code];
            put(&w, codes[257 + code] | extra << lengths[257 + code], lengths[257 + code] + RUN_EXTRA[code] + 1u);
            data += step->run;
        }
    }
    put(&w, codes[END], lengths[END]);
    *writer = w;
}

/* Count the literals and runs of data[0:size], and write down the steps. first: no byte comes before it. */
static void scan(const uint8_t *data, size_t size, int first, Group *plane)
{
    uint32_t counts[4][LITERALS] = {{0}}; /* four, so that equal bytes in a row do not wait for each other */
    const uint8_t *end = data + size, *start = data, *p = data;
    Step *step = plane->first;
    memset(plane->counts, 0, sizeof plane->counts);
    plane->data = data;
    if (first && p < end)
        counts[0][*p++]++;
    while (end - p >= 8) {
        uint64_t here, before;
        memcpy(&here, p, 8);
        memcpy(&before, p - 1, 8);
        if (here != before) {
            for (int i = 0; i < 8; i++)
                counts[i & 3][here >> 8 * i & 255]++;
            p += 8;
            continue;
        }
        const uint8_t *stop = p + 8, *most = end - p < LONGEST ? end : p + LONGEST;
        for (; most - stop >= 8 && (memcpy(&before, stop, 8), before == here); stop += 8)
            ;
        while (stop < most && *stop == *p)
            stop++;
        plane->counts[257 + run_code[stop - p]]++;
        *step++ = (Step){(uint32_t)(p - start), (uint32_t)(stop - p)};
        start = p = stop;
    }
    for (; p < end; p++)
        counts[0][*p]++;
    *step++ = (Step){(uint32_t)(end - start), 0};
    plane->last = step;
    for (int s = 0; s < LITERALS; s++)
        plane->counts[s] = counts[0][s] + counts[1][s] + counts[2][s] + counts[3][s];
}

/* Compress data[0:size] to `out`; return the number of bytes. The first plane is what is left over of whole ones. */
static size_t compress(const uint8_t *data, size_t size, size_t plane_size, Step *steps, uint8_t *out)
{
    Writer writer = {out, 0, 0};
    Group group = {{0}, data, steps, steps}, plane;
    uint64_t group_cost = 0;
    for (size_t done = 0, next = size % plane_size; done < size; done += next, next = plane_size) {
        if (!next)
            next = plane_size;
        plane.first = group.last;
        scan(data + done, next, done == 0, &plane);
        uint32_t both[SYMBOLS];
        for (int s = 0; s < SYMBOLS; s++)
            both[s] = group.counts[s] + plane.counts[s];
        const uint64_t plane_cost = cost(plane.counts), joint_cost = cost(both);
        if (joint_cost > group_cost + plane_cost + BLOCK_COST) {
            put_block(&writer, &group, 0);
            group = plane;
            group_cost = plane_cost;
        } else {
            memcpy(group.counts, both, sizeof both);
            group.last = plane.last;
            group_cost = joint_cost;
        }
    }
    put_block(&writer, &group, 1);
    if (writer.pending)
        *writer.next++ = (uint8_t)writer.bits;
    return (size_t)(writer.next - out);
}

static PyObject *deflate(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer data;
    Py_ssize_t plane;
    if (!PyArg_ParseTuple(args, "y*n", &data, &plane))
        return NULL;
    if (plane < 1 || data.len > INT32_MAX) {
        PyBuffer_Release(&data);
        PyErr_SetString(PyExc_ValueError, "a plane needs a byte or more, the data less than 2 GiB");
        return NULL;
    }
    const size_t size = (size_t)data.len, planes = size / (size_t)plane + 1;
    /* a code has at most 12 bits; a step stands for 8 bytes or more, except the last of a plane */
    uint8_t *out = PyMem_Malloc(size + size / 2 + HEADER * planes + 16);
    Step *steps = PyMem_Malloc((size / 8 + planes + 1) * sizeof *steps);
    PyObject *result = NULL;
    if (out && steps) {
        size_t length;
        Py_BEGIN_ALLOW_THREADS
        length = compress(data.buf, size, (size_t)plane, steps, out);
        Py_END_ALLOW_THREADS
        result = PyBytes_FromStringAndSize((char *)out, (Py_ssize_t)length);
    } else
        PyErr_NoMemory();
    PyMem_Free(steps);
    PyMem_Free(out);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"deflate", deflate, METH_VARARGS, "deflate(data, plane): see _deflate.pyi"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_deflate", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__deflate(void)
{
    make_tables();
    return PyModule_Create(&module);
}
