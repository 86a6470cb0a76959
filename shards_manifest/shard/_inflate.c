/* A gzip member of runs and literals, as `_deflate.c` makes it, back to bytes; `compress.py` says what for.
 *
 * Only what such a member has is known here: codes of 12 bits at most, and runs of one byte. Everything else, damage
 * too, is refused, and ISA-L, which knows all of DEFLATE (RFC 1951), is asked instead. What takes the time is the
 * chain from one look-up to the next, so that one gives as many literals as its bits hold.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if PY_BIG_ENDIAN
#error "byte order: big-endian machines use ISA-L"
#endif

enum {
    END = 256, /* the symbol that ends a block */
    SYMBOLS = 286,
    LIMIT = 12,   /* bits of the longest code */
    WIDTH = 10,   /* bits of a look-up: with 11 the tables take longer to build than they save */
    AT_ONCE = 6,  /* literals that one look-up gives */
    LOOKUPS = 5,  /* between two refills: 5 * WIDTH bits of 56 */
    SLACK = 512   /* bytes behind the output that are written too: LOOKUPS * 8 and a run of 258, in pieces of 32 */
};

static const uint8_t HEADER[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
static const uint16_t RUN_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                      31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t RUN_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint8_t LENGTH_ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits;     /* not used yet, the first in the lowest place */
    unsigned held;     /* how many of them count */
    unsigned invented; /* bytes of zeros that were taken from behind the end */
} Reader;

typedef struct {
    uint16_t one[1 << LIMIT];  /* by the next bits: symbol << 4 | bits of its code */
    uint64_t many[2 << WIDTH]; /* by the next w bits, from 1 << w on: literals << 16 | their count << 8 | their bits */
} Tables;

/* Hold 56 bits at least. */
static inline void refill(Reader *r)
{
    if (r->end - r->next >= 8) {
        uint64_t word;
        memcpy(&word, r->next, 8);
        r->bits |= word << r->held; /* those that do not count yet come again at the same place */
        r->next += (63 - r->held) >> 3;
        r->held |= 56;
        return;
    }
    for (; r->held <= 56; r->held += 8) {
        if (r->next < r->end)
            r->bits |= (uint64_t)*r->next++ << r->held;
        else
            r->invented++;
    }
}

static inline unsigned take(Reader *r, unsigned count)
{
    const unsigned value = (unsigned)(r->bits & ((1u << count) - 1));
    r->bits >>= count;
    r->held -= count;
    return value;
}

/* The table of a canonical code, for `limit` bits; 0 if these lengths, 15 at most, make no complete code. */
static int fill(const uint8_t *lengths, int symbols, unsigned limit, uint16_t *table)
{
    unsigned counts[16] = {0}, at[16], first = 0, used = 0, code = 0;
    uint16_t sorted[SYMBOLS];
    const uint16_t *next = sorted;
    for (int s = 0; s < symbols; s++)
        counts[lengths[s]]++;
    for (unsigned l = 1; l < 16; l++) {
        if (l > limit && counts[l])
            return 0;
        at[l] = first;
        first += counts[l];
        used += counts[l] << (15 - l);
    }
    if (used != 1u << 15)
        return 0;
    for (int s = 0; s < symbols; s++)
        if (lengths[s])
            sorted[at[lengths[s]]++] = (uint16_t)(s << 4 | lengths[s]);
    table[0] = 0;
    for (unsigned l = 1, half = 1; l <= limit; l++, half *= 2) {
        memcpy(table + half, table, half * sizeof *table); /* shorter codes do not depend on this bit */
        for (unsigned i = 0; i < counts[l]; i++) {
            table[code] = *next++;
            unsigned bit = half; /* add 1 to a number that has its highest bit first */
            for (; code & bit; bit >>= 1)
                code ^= bit;
            code |= bit;
        }
    }
    return 1;
}

/* From single symbols, literals together: the first, and what the bits behind its code hold. */
static void fill_many(const uint8_t *lengths, Tables *t)
{
    int least = LIMIT;
    for (int s = 0; s < END; s++)
        if (lengths[s] && lengths[s] < least)
            least = lengths[s];
    t->many[1] = 0;
    for (int w = 1; w <= WIDTH; w++) {
        uint64_t *level = t->many + (1u << w);
        if (WIDTH - least < w && w < WIDTH) /* never what is left behind a code */
            continue;
        for (unsigned i = 0; i < 1u << w; i++) {
            const unsigned symbol = t->one[i] >> 4;
            const int length = t->one[i] & 15;
            level[i] = 0;
            if (length > w || symbol >= END)
                continue;
            const uint64_t rest = t->many[(1u << (w - length)) + (i >> length)];
            const uint64_t alone = (uint64_t)symbol << 16 | 1 << 8 | (unsigned)length;
            level[i] = (rest >> 8 & 255) < AT_ONCE ? alone + (rest & 0xffff) + (rest >> 16 << 24) : alone;
        }
    }
}

/* The codes of a block; 0 if they are not of our kind. */
static int read_codes(Reader *r, Tables *t)
{
    uint8_t of_symbols[19] = {0}, lengths[SYMBOLS + 1 + 138];
    uint16_t table[1 << 7];
    refill(r);
    const int used = (int)take(r, 5) + 257, distances = (int)take(r, 5) + 1, described = (int)take(r, 4) + 4;
    for (int i = 0; i < described; i++) {
        if (i % 16 == 0)
            refill(r);
        of_symbols[LENGTH_ORDER[i]] = (uint8_t)take(r, 3);
    }
    if (used > SYMBOLS || distances != 1 || !fill(of_symbols, 19, 7, table))
        return 0;
    int count = 0;
    while (count <= used) {
        refill(r);
        const unsigned entry = table[r->bits & 127], symbol = entry >> 4;
        take(r, entry & 15);
        if (symbol < 16) {
            lengths[count++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && !count)
            return 0;
        const int value = symbol == 16 ? lengths[count - 1] : 0;
        const int times = (int)(symbol == 16 ? 3 + take(r, 2) : symbol == 17 ? 3 + take(r, 3) : 11 + take(r, 7));
        memset(lengths + count, value, (size_t)times);
        count += times;
    }
    /* behind the codes of literals and runs is that of the only distance: one bit, or none */
    if (count != used + 1 || lengths[used] > 1 || !lengths[END] || !fill(lengths, used, LIMIT, t->one))
        return 0;
    fill_many(lengths, t);
    return 1;
}

/* The bytes of a block, from `out` on; where they end, or NULL. Before `start` there are none. */
static uint8_t *read_bytes(Reader *reader, const Tables *t, const uint8_t *start, uint8_t *out, const uint8_t *end)
{
    const uint64_t *const many = t->many + (1u << WIDTH);
    Reader r = *reader; /* in registers */
    while (out <= end && r.invented <= 8) {
        uint64_t found = 0;
        refill(&r);
        for (int i = 0; i < LOOKUPS; i++) {
            found = many[r.bits & ((1u << WIDTH) - 1)];
            if (!found)
                break;
            const uint64_t literals = found >> 16;
            memcpy(out, &literals, 8);
            out += found >> 8 & 255;
            r.bits >>= found & 63;
            r.held -= found & 63;
        }
        if (found)
            continue;
        refill(&r);
        const unsigned entry = t->one[r.bits & ((1u << LIMIT) - 1)], symbol = entry >> 4;
        take(&r, entry & 15);
        if (symbol < END) { /* a code that is longer than a look-up */
            *out++ = (uint8_t)symbol;
        } else if (symbol == END) {
            *reader = r;
            return out;
        } else {
            const unsigned run = RUN_BASE[symbol - 257] + take(&r, RUN_EXTRA[symbol - 257]);
            if (take(&r, 1) || out == start) /* the bit is the distance */
                return NULL;
            const uint64_t byte = out[-1] * 0x0101010101010101u, pieces[4] = {byte, byte, byte, byte};
            memcpy(out, pieces, 32);
            for (unsigned i = 32; i < run; i += 32)
                memcpy(out + i, pieces, 32);
            out += run;
        }
    }
    return NULL;
}

/* Inflate into out[0:room], with SLACK behind it: the count of bytes, or -1. */
static Py_ssize_t inflate(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    Tables tables;
    if (size < sizeof HEADER + 8 || memcmp(data, HEADER, sizeof HEADER))
        return -1;
    Reader reader = {data + sizeof HEADER, data + size - 8, 0, 0, 0};
    uint8_t *at = out;
    unsigned final = 0;
    while (!final) {
        refill(&reader);
        final = take(&reader, 1);
        if (take(&reader, 2) != 2 || !read_codes(&reader, &tables))
            return -1;
        at = read_bytes(&reader, &tables, out, at, out + room);
        if (!at)
            return -1;
    }
    /* all of the data was used, and no more */
    const int whole = reader.next == reader.end && reader.held / 8 == reader.invented;
    return whole && (size_t)(at - out) <= room ? at - out : -1;
}

static PyObject *inflate_into(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer data, out;
    if (!PyArg_ParseTuple(args, "y*w*", &data, &out))
        return NULL;
    Py_ssize_t count = -1;
    if (out.len >= SLACK) {
        Py_BEGIN_ALLOW_THREADS
        count = inflate(data.buf, (size_t)data.len, out.buf, (size_t)out.len - SLACK);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return PyLong_FromSsize_t(count);
}

static PyMethodDef methods[] = {
    {"inflate", inflate_into, METH_VARARGS, "inflate(data, out): see _inflate.pyi"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_inflate", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__inflate(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddIntConstant(made, "SLACK", SLACK)) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
