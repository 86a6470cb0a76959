/* The work of `_kernel.c`, compiled once for each kind of processor: WIDTH floats a vector, named run_WIDTH. */

typedef float VEC __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

/* One tile of every phase as three channels, in quarters of a grey level. */
INLINE void NAMED(load)(const Job *job, const uint32_t *pixels, int start, int count,
                        float phases[3][MAX_PHASES][TILE])
{
    uint32_t packed[TILE];
    memset(packed, 0, sizeof packed);
    const int s = job->grid, plane = job->plane;
    float m[12];
    memcpy(m, job->color, sizeof m);
    for (int k = 0; k < job->phases; k++) {
        int row = start / plane, column = start % plane;
        for (int n = 0; n < count; row++, column = 0) {
            const uint32_t *from = pixels + (Py_ssize_t)(row * s + k / s) * s * plane + column * s + k % s;
            const int end = count - n < plane - column ? count : n + plane - column;
            for (; n < end; n++, from += s)
                packed[n] = *from;
        }
        float *y = phases[0][k], *u = phases[1][k], *v = phases[2][k];
        for (int n = 0; n < TILE; n++) {
            const float r = (float)(int32_t)(packed[n] & 255), g = (float)(int32_t)(packed[n] >> 8 & 255);
            const float b = (float)(int32_t)(packed[n] >> 16 & 255);
            y[n] = (m[0] * r + m[1] * g + m[2] * b + m[3] + ROUND) - ROUND;
            u[n] = (m[4] * r + m[5] * g + m[6] * b + m[7] + ROUND) - ROUND;
            v[n] = (m[8] * r + m[9] * g + m[10] * b + m[11] + ROUND) - ROUND;
        }
        for (int n = count; n < TILE; n++)
            y[n] = u[n] = v[n] = 0; /* counts nothing */
    }
}

/* In place of 2 * half inputs: sums of those that mirror each other, then differences, the last pair first. */
INLINE void NAMED(fold)(int half, float phases[MAX_PHASES][TILE])
{
    for (int k = 0; k < half; k++) {
        float *restrict low = phases[k], *restrict high = phases[2 * half - 1 - k];
        for (int n = 0; n < TILE; n++) {
            const float sum = low[n] + high[n];
            high[n] = low[n] - high[n];
            low[n] = sum;
        }
    }
}

/* Round, clip, store and count the `count` coefficients of one band and channel in a tile. */
INLINE void NAMED(store)(const Job *job, const float *values, int place, int channel, int start, int count)
{
    int8_t stored[TILE];
    int32_t clipped = 0, total = 0, squares = 0;
    for (int n = 0; n < TILE; n++) {
        const int32_t rounded = (int32_t)((values[n] + ROUND) - ROUND);
        const int32_t high = rounded < 127 ? rounded : 127;
        const int32_t value = high > -128 ? high : -128;
        clipped += value != rounded;
        total += value;
        squares += value * value;
        stored[n] = (int8_t)value;
    }
    int8_t *out = job->out + place * job->stride + (Py_ssize_t)channel * job->plane * job->plane + start;
    if (count == TILE)
        memcpy(out, stored, TILE); /* a constant size is moved without a call */
    else
        memcpy(out, stored, count);
    int64_t *counts = job->counts + 3 * place + channel;
    counts[0] += clipped;
    counts[3 * job->bands] += total;
    counts[6 * job->bands] += squares;
}

/* `bands` (at most GROUP, a constant where this is used) bands of one channel of a tile.
   x: the inputs, one for each term, with `spacing` floats from one to the next. */
INLINE void NAMED(mix)(const Job *job, const int bands, int first, int channel, int terms, const float *x,
                       Py_ssize_t spacing, int start, int count)
{
    const float *weights = job->weights + ((Py_ssize_t)channel * job->bands + first) * job->terms;
    float values[GROUP][TILE];
    for (int n = 0; n < TILE; n += 2 * WIDTH) {
        VEC sum[GROUP][2] = {{{0}}};
        for (int k = 0; k < terms; k++) {
            const VEC *from = (const VEC *)(x + k * spacing + n);
            const VEC x0 = from[0], x1 = from[1];
            for (int b = 0; b < bands; b++) {
                sum[b][0] += weights[b * job->terms + k] * x0;
                sum[b][1] += weights[b * job->terms + k] * x1;
            }
        }
        for (int b = 0; b < bands; b++) {
            *(VEC *)(values[b] + n) = sum[b][0];
            *(VEC *)(values[b] + n + WIDTH) = sum[b][1];
        }
    }
    for (int b = 0; b < bands; b++)
        NAMED(store)(job, values[b], job->places[first + b], channel, start, count);
}

/* Bands first to last - 1, in groups as equal as can be. */
INLINE void NAMED(mix_all)(const Job *job, int first, int last, int channel, int terms, const float *x,
                           Py_ssize_t spacing, int start, int count)
{
    while (first < last) {
        const int groups = (last - first + GROUP - 1) / GROUP;
        const int bands = (last - first + groups - 1) / groups;
        switch (bands) { /* a constant number of sums stays in registers */
#define CASE(N) case N: NAMED(mix)(job, N, first, channel, terms, x, spacing, start, count); break
            CASE(1);
            CASE(2);
            CASE(3);
            CASE(4);
            CASE(5);
            CASE(6);
#undef CASE
        }
        first += bands;
    }
}

static void NAMED(run)(const Job *job, const uint32_t *pixels)
{
    float phases[3][MAX_PHASES][TILE];
    const int columns = job->plane * job->plane, half = job->phases / 2, quarter = half / 2;
    for (int start = 0; start < columns; start += TILE) {
        const int count = columns - start < TILE ? columns - start : TILE;
        NAMED(load)(job, pixels, start, count, phases);
        for (int c = 0; c < 3; c++) {
            if (job->sums < 0) {
                NAMED(mix_all)(job, 0, job->bands, c, job->phases, phases[c][0], TILE, start, count);
                continue;
            }
            NAMED(fold)(half, phases[c]);
            if (job->again < 0) {
                NAMED(mix_all)(job, 0, job->sums, c, half, phases[c][0], TILE, start, count);
            } else {
                NAMED(fold)(quarter, phases[c]);
                NAMED(mix_all)(job, 0, job->again, c, quarter, phases[c][0], TILE, start, count);
                NAMED(mix_all)(job, job->again, job->sums, c, quarter, phases[c][half - 1], -TILE, start, count);
            }
            NAMED(mix_all)(job, job->sums, job->bands, c, half, phases[c][2 * half - 1], -TILE, start, count);
        }
    }
}

#undef VEC
#undef NAMED
#undef WIDTH
