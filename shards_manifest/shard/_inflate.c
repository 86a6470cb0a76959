/* Decompress a gzip member of literals and runs, as `_deflate.c` makes it; docs/decisions/0012 says why.
 *
 * Only what such a member has is known here: codes of 12 bits at most, and runs of one byte. Everything else, damage
 * too, is refused, and ISA-L, which knows all of DEFLATE (RFC 1951), decompresses instead. Most of the time goes into
 * the chain from one look-up to the next, so a look-up gives as many literals as its bits stand for.
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
    LENGTHS = 19,      /* symbols of the code that describes the lengths of the other codes */
    LENGTHS_LIMIT = 7, /* bits of its longest code */
    LIMIT = 12,        /* bits of the longest code of literals and runs, and of a look-up */
    MAX_LITERALS = 6,  /* literals of one look-up */
    LOOKUPS = 3,       /* look-ups between two refills; see read_bytes */
    SLACK = 512,       /* writable bytes needed after the output: LOOKUPS * 8, and a run of 258 in pieces of 32 */
    COUNT_AT = 8,      /* this and the following: places in a table entry */
    COUNT_MASK = 255 << COUNT_AT,
    LITERALS_AT = 16,
    EXTRA_AT = 32,
    MASK_AT = 48
};

/* An entry of the table for the next LIMIT bits. Its lowest 8 bits say how many bits it uses, the next 8 how many
 * literals it gives; these stand from LITERALS_AT on, the first one lowest. An entry without literals ends the block,
 * or gives a run: the base of its length at LITERALS_AT, where its extra bits are at EXTRA_AT, their mask at MASK_AT.
 */
typedef uint64_t Entry;

static const uint8_t HEADER[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
static const uint16_t RUN_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                      31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t RUN_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                      2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint8_t LENGTH_ORDER[LENGTHS] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits;      /* not used yet, the first in the lowest place */
    unsigned available; /* how many of them are valid */
    unsigned missing;   /* bytes of zeros that stand for bytes after the end */
} Reader;

/* The symbols of a canonical code in the order of their codes, which is by length, then by number. */
typedef struct {
    unsigned counts[LIMIT + 1]; /* symbols by length; none of length 0 */
    uint16_t symbols[SYMBOLS];
    uint16_t codes[SYMBOLS]; /* of these symbols, the first bit in the lowest place */
} Code;

/* Make 56 bits available at least. */
static inline void refill(Reader *r)
{
    if (r->end - r->next >= 8) {
        uint64_t word;
        memcpy(&word, r->next, 8);
        r->bits |= word << r->available; /* bits past the valid ones are the same when they are read again */
        r->next += (63 - r->available) >> 3;
        r->available |= 56;
        return;
    }
    for (; r->available <= 56; r->available += 8) {
        if (r->next < r->end)
            r->bits |= (uint64_t)*r->next++ << r->available;
        else
            r->missing++;
    }
}

static inline unsigned take(Reader *r, unsigned count)
{
    const unsigned value = (unsigned)(r->bits & ((1u << count) - 1));
    r->bits >>= count;
    r->available -= count;
    return value;
}

/* Sort the symbols of a code; 0 if these lengths, 15 at most, make no complete code of `limit` bits at most. */
static int sort_symbols(const uint8_t *lengths, int symbols, unsigned limit, Code *c)
{
    unsigned counts[16] = {0}, at[16], first = 0, used = 0, code = 0;
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
    at[0] = first; /* symbols that do not occur go after the others, which needs no branch */
    for (int s = 0; s < symbols; s++)
        c->symbols[at[lengths[s]]++] = (uint16_t)s;
    c->counts[0] = 0;
    for (unsigned l = 1, i = 0; l <= limit; l++) {
        const unsigned ones = (1u << l) - 1;
        c->counts[l] = counts[l];
        for (const unsigned stop = i + counts[l]; i < stop; i++) {
            c->codes[i] = (uint16_t)code;
            if (code == ones) /* the last one */
                break;
            const unsigned bit = 1u << (31 - __builtin_clz(code ^ ones)); /* add 1, carrying from high to low bits */
            code = (code & (bit - 1)) | bit;
        }
    }
    return 1;
}

/* Fill the table of the code that describes lengths: symbol << 3 | bits, for the next LENGTHS_LIMIT bits. */
static void fill_lengths_table(const Code *c, uint8_t *table)
{
    table[0] = 0;
    for (unsigned l = 1, i = 0; l <= LENGTHS_LIMIT; l++) {
        const size_t half = (size_t)1 << (l - 1);
        memcpy(table + half, table, half); /* shorter codes do not depend on this bit */
        for (const unsigned stop = i + c->counts[l]; i < stop; i++)
            table[c->codes[i]] = (uint8_t)(c->symbols[i] << 3 | l);
    }
}

/* The entry of a symbol that is no literal, with a code of `length` bits. */
static Entry end_or_run(unsigned symbol, unsigned length)
{
    if (symbol == END)
        return length;
    const unsigned base = RUN_BASE[symbol - 257], extra = RUN_EXTRA[symbol - 257], mask = (1u << extra) - 1;
    return (Entry)mask << MASK_AT | (Entry)length << EXTRA_AT | (Entry)base << LITERALS_AT |
           (length + extra + 1); /* 1: the bit of the distance */
}

/* Fill the table of literals and runs, which doubles with each bit.
 *
 * A string is a row of codes of literals. The strings that end with bit w are those that end with bit w - l, with a
 * code of l bits after them; only their entries change, all others are copied.
 */
static void fill_table(const Code *c, Entry *table)
{
    Entry strings[1 << LIMIT];
    uint16_t patterns[1 << LIMIT];       /* the bits of each string */
    unsigned starts[LIMIT + 2] = {0, 1}; /* of the strings that end with each bit; the empty one ends with bit 0 */
    unsigned firsts[LIMIT + 1], literals[LIMIT + 1], shortest = LIMIT, count = 1;
    for (unsigned l = 1, i = 0; l <= LIMIT; l++) {
        firsts[l] = i;
        literals[l] = 0; /* they stand before END and the runs of the same length */
        for (const unsigned stop = i + c->counts[l]; i < stop; i++)
            literals[l] += c->symbols[i] < END;
        if (literals[l] && l < shortest)
            shortest = l;
    }
    strings[0] = table[0] = 0;
    patterns[0] = 0;
    for (unsigned w = 1; w <= LIMIT; w++) {
        const size_t half = (size_t)1 << (w - 1);
        const int may_go_on = w + shortest <= LIMIT; /* only then are its strings needed again */
        memcpy(table + half, table, half * sizeof *table);
        for (unsigned i = firsts[w] + literals[w]; i < firsts[w] + c->counts[w]; i++)
            table[c->codes[i]] = end_or_run(c->symbols[i], w);
        for (unsigned l = 1; l <= w; l++) {
            const uint16_t *const codes = c->codes + firsts[l], *const symbols = c->symbols + firsts[l];
            const unsigned before = w - l, added = literals[l];
            if (!added)
                continue;
            for (unsigned k = starts[before]; k < starts[before + 1]; k++) {
                const unsigned pattern = patterns[k], count_before = strings[k] >> COUNT_AT & 7;
                const unsigned literal_at = LITERALS_AT + 8 * count_before;
                const Entry longer = strings[k] + (1 << COUNT_AT | l);
                if (count_before == MAX_LITERALS)
                    continue;
                if (!may_go_on) {
                    for (unsigned i = 0; i < added; i++)
                        table[pattern | codes[i] << before] = longer + ((Entry)symbols[i] << literal_at);
                    continue;
                }
                for (unsigned i = 0; i < added; i++) {
                    patterns[count] = (uint16_t)(pattern | codes[i] << before);
                    strings[count] = longer + ((Entry)symbols[i] << literal_at);
                    table[patterns[count]] = strings[count];
                    count++;
                }
            }
        }
        starts[w + 1] = count;
    }
}

/* Read the codes of a block and fill its table; 0 if they are not of our kind. */
static int read_codes(Reader *r, Entry *table)
{
    uint8_t of_lengths[LENGTHS] = {0}, lengths[SYMBOLS + 1 + 138], lengths_table[1 << LENGTHS_LIMIT];
    Code code;
    refill(r);
    const int used = (int)take(r, 5) + 257, distances = (int)take(r, 5) + 1, described = (int)take(r, 4) + 4;
    for (int i = 0; i < described; i++) {
        if (i % 16 == 0)
            refill(r);
        of_lengths[LENGTH_ORDER[i]] = (uint8_t)take(r, 3);
    }
    if (used > SYMBOLS || distances != 1 || !sort_symbols(of_lengths, LENGTHS, LENGTHS_LIMIT, &code))
        return 0;
    fill_lengths_table(&code, lengths_table);
    int count = 0;
    while (count <= used) {
        refill(r);
        const unsigned entry = lengths_table[r->bits & ((1u << LENGTHS_LIMIT) - 1)], symbol = entry >> 3;
        take(r, entry & 7);
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
    /* after the codes of literals and runs comes that of the only distance: one bit, or none */
    if (count != used + 1 || lengths[used] > 1 || !lengths[END] || !sort_symbols(lengths, used, LIMIT, &code))
        return 0;
    fill_table(&code, table);
    return 1;
}

/* Write the bytes of a block from `out` on; return where they end, or NULL. There are none before `start`.
 *
 * The next entry is looked up before a refill, which then costs no wait. Of the 56 bits of a refill, LOOKUPS
 * entries use 12 each, and 20 remain: enough for the next look-up, and for a run, which uses 12 + 5 + 1.
 */
static uint8_t *read_bytes(Reader *reader, const Entry *table, const uint8_t *start, uint8_t *out, const uint8_t *end)
{
    const unsigned mask = (1u << LIMIT) - 1;
    Reader r = *reader; /* in registers */
    refill(&r);
    Entry entry = table[r.bits & mask];
    while (out <= end && r.missing <= 8) {
        refill(&r);
        for (int i = 0; i < LOOKUPS; i++) {
            if (!(entry & COUNT_MASK))
                break;
            const uint64_t literals = entry >> LITERALS_AT;
            const unsigned count = entry >> COUNT_AT & 255;
            r.bits >>= entry & 63;
            r.available -= entry & 63;
            entry = table[r.bits & mask];
            memcpy(out, &literals, 8);
            out += count;
        }
        if (entry & COUNT_MASK)
            continue;
        const uint64_t bits = r.bits;
        const unsigned used = entry & 63, base = entry >> LITERALS_AT & 0xffff;
        r.bits >>= used;
        r.available -= used;
        if (!base) {
            *reader = r;
            return out;
        }
        if (bits >> (used - 1) & 1 || out == start) /* another distance than 1, or nothing to repeat */
            return NULL;
        const unsigned run = base + (unsigned)(bits >> (entry >> EXTRA_AT & 15) & entry >> MASK_AT);
        refill(&r);
        entry = table[r.bits & mask];
        const uint64_t byte = out[-1] * 0x0101010101010101u, pieces[4] = {byte, byte, byte, byte};
        memcpy(out, pieces, 32);
        for (unsigned i = 32; i < run; i += 32)
            memcpy(out + i, pieces, 32);
        out += run;
    }
    return NULL;
}

/* Inflate into out[0:size], with SLACK after it; return the count of bytes, or -1. */
static Py_ssize_t inflate(const uint8_t *data, size_t data_size, uint8_t *out, size_t size)
{
    Entry table[1 << LIMIT];
    if (data_size < sizeof HEADER + 8 || memcmp(data, HEADER, sizeof HEADER))
        return -1;
    Reader reader = {data + sizeof HEADER, data + data_size - 8, 0, 0, 0};
    uint8_t *at = out;
    unsigned final = 0;
    while (!final) {
        refill(&reader);
        final = take(&reader, 1);
        if (take(&reader, 2) != 2 || !read_codes(&reader, table))
            return -1;
        at = read_bytes(&reader, table, out, at, out + size);
        if (!at)
            return -1;
    }
    /* all of the data was used, and no more */
    const int complete = reader.next == reader.end && reader.available / 8 == reader.missing;
    return complete && (size_t)(at - out) <= size ? at - out : -1;
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
