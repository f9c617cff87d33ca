/* The inner loops of a frame: pixels sampled in boxes, templates matched, graphs of neighbours searched.
 *
 * Plain C without Python's headers. kernels.py loads the compiled file and sees to it that every index lies inside; each
 * function does what the code beside its caller does (NumPy, hnswlib), which runs where this file was not compiled. Not
 * -ffast-math, with which GCC 12 has the whole process round small numbers to zero.
 *
 * cc -std=gnu11 -O3 -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VERSION 1 /* of the functions below; kernels.py takes no other */

/* Once for each generation of x86-64, chosen when the file is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERNEL
#endif

#define INLINE static inline __attribute__((always_inline))

typedef ptrdiff_t size;

int edge_vad_version(void) { return VERSION; }

/* Bilinear samples of a plane of uint8, n_columns wide, in n boxes -> out (n, height, width).
 *
 * x (n, width), y (n, height): the pixel left of and above each sample, with another one right of and below it; fx, fy:
 * how far the sample lies from it, 0..1.
 */
KERNEL void edge_vad_windows(const uint8_t *plane, size n_columns, const int64_t *x, const float *fx, const int64_t *y,
                             const float *fy, float *out, size n, size width, size height)
{
    for (size k = 0; k < n; k++, x += width, fx += width, y += height, fy += height)
        for (size j = 0; j < height; j++, out += width) {
            const uint8_t *above = plane + y[j] * n_columns, *below = above + n_columns;
            for (size i = 0; i < width; i++) {
                float top = above[x[i]], bottom = below[x[i]];
                top += ((float)above[x[i] + 1] - top) * fx[i];
                bottom += ((float)below[x[i] + 1] - bottom) * fx[i];
                out[i] = top + (bottom - top) * fy[j];
            }
        }
}

/* Below 65536 for weights in 0..256; unsigned, so that another weight does no harm. */
INLINE uint8_t mixed(uint32_t a, uint32_t b, uint32_t weight) { return (uint8_t)((a * 256 + (b - a) * weight + 128) >> 8); }

/* The same of an image (rows, n_columns, 3) in 8.8 fixed point -> out (n, height, width, 3) uint8; weights wx, wy in
 * 0..256. line (2, 3 width): room for two rows of samples: rows that follow each other share one.
 */
KERNEL void edge_vad_crops(const uint8_t *image, size n_columns, const int64_t *x, const uint32_t *wx, const int64_t *y,
                           const uint32_t *wy, uint8_t *out, uint8_t *line, size n, size width, size height)
{
    for (size k = 0; k < n; k++, x += width, wx += width, y += height, wy += height) {
        int64_t held[2] = {-1, -1};
        for (size j = 0; j < height; j++, out += 3 * width) {
            for (int64_t row = y[j]; row <= y[j] + 1; row++) {
                uint8_t *to = line + (row & 1) * 3 * width;
                if (held[row & 1] == row)
                    continue;
                held[row & 1] = row;
                for (size i = 0; i < width; i++) {
                    const uint8_t *left = image + 3 * (row * n_columns + x[i]);
                    for (size c = 0; c < 3; c++)
                        to[3 * i + c] = mixed(left[c], left[c + 3], wx[i]);
                }
            }
            const uint8_t *above = line + (y[j] & 1) * 3 * width, *below = line + (~y[j] & 1) * 3 * width;
            for (size i = 0; i < 3 * width; i++)
                out[i] = mixed(above[i], below[i], wy[j]);
        }
    }
}

/* Shifts that are matched at once: as many as keep the registers of every processor busy. */
#define ROWS 4
#define COLUMNS 16
typedef float lanes __attribute__((vector_size(4 * COLUMNS), aligned(4), may_alias));

INLINE size rounded_up(size value, size step) { return (value + step - 1) / step * step; }

/* A template (h, w) in an area (n_rows, n_columns): down x across shifts. wide, tall: of the area with room behind it for
 * shifts up to the next multiple of COLUMNS and ROWS. */
typedef struct {
    size h, w, n_rows, n_columns, down, across, wide, tall;
} match;

INLINE match match_of(size h, size w, size n_rows, size n_columns)
{
    const size down = n_rows - h + 1, across = n_columns - w + 1;
    const size wide = rounded_up(across, COLUMNS) + w - 1, tall = rounded_up(down, ROWS) + h - 1;
    return (match){h, w, n_rows, n_columns, down, across, wide, tall};
}

/* Floats of scratch that edge_vad_correlate needs. */
size edge_vad_correlate_room(size h, size w, size n_rows, size n_columns)
{
    const match m = match_of(h, w, n_rows, n_columns);
    return m.tall * m.wide + 2 * n_rows * m.wide + (h + 2 * ROWS - 2) * w;
}

/* The area without its mean, in the upper left of centred (tall, wide). */
INLINE void centre(const match *m, const float *area, float *centred)
{
    float mean = 0;
    for (size i = 0; i < m->n_rows * m->n_columns; i++)
        mean += area[i];
    mean /= (float)(m->n_rows * m->n_columns);
    for (size y = 0; y < m->n_rows; y++)
        for (size x = 0; x < m->n_columns; x++)
            centred[y * m->wide + x] = area[y * m->n_columns + x] - mean;
}

/* Sums of w neighbours and of their squares, both (n_rows, wide). */
INLINE void sum_across(const match *m, const float *centred, float *sums, float *squares)
{
    for (size y = 0; y < m->n_rows; y++)
        for (size x = 0; x < m->across; x += COLUMNS) {
            lanes sum = {0}, square = {0};
            for (size i = 0; i < m->w; i++) {
                const lanes pixels = *(const lanes *)(centred + y * m->wide + x + i);
                sum += pixels;
                square += pixels * pixels;
            }
            *(lanes *)(sums + y * m->wide + x) = sum;
            *(lanes *)(squares + y * m->wide + x) = square;
        }
}

/* The template, with ROWS - 1 rows of zeros above and below it, times the pixels under it at ROWS x COLUMNS shifts from
 * (x, y) on: each pixel is read once for all the rows. */
INLINE void multiply(const match *m, const float *padded, const float *centred, size x, size y, lanes products[ROWS])
{
    for (size j = 0; j < m->h + ROWS - 1; j++)
        for (size i = 0; i < m->w; i++) {
            const lanes pixels = *(const lanes *)(centred + (y + j) * m->wide + x + i);
            const float *weight = padded + (j + ROWS - 1) * m->w + i;
            products[0] += weight[0] * pixels;
            products[1] += weight[-m->w] * pixels;
            products[2] += weight[-2 * m->w] * pixels;
            products[3] += weight[-3 * m->w] * pixels;
        }
}

/* Products (down, across) over the energies of template and pixels. */
INLINE void normalise(const match *m, const float *sums, const float *squares, float norm, float flat, float *out)
{
    for (size y = 0; y < m->down; y++)
        for (size x = 0; x < m->across; x += COLUMNS) {
            lanes sum = {0}, square = {0};
            for (size j = 0; j < m->h; j++) {
                sum += *(const lanes *)(sums + (y + j) * m->wide + x);
                square += *(const lanes *)(squares + (y + j) * m->wide + x);
            }
            for (size c = 0; c < COLUMNS && x + c < m->across; c++) {
                const float energy = square[c] - sum[c] * sum[c] / (float)(m->h * m->w);
                out[y * m->across + x + c] /= sqrtf(fmaxf(energy, 1e-3f)) * norm + flat;
            }
        }
}

/* Normalised cross-correlation of n zero-mean templates (h, w) in areas (n_rows, n_columns), no smaller than they are ->
 * out (n, n_rows - h + 1, n_columns - w + 1). flat: is added to the product of the energies.
 */
KERNEL void edge_vad_correlate(const float *template, const float *area, float flat, float *out, float *scratch, size n,
                               size h, size w, size n_rows, size n_columns)
{
    const match m = match_of(h, w, n_rows, n_columns);
    float *centred = scratch, *sums = centred + m.tall * m.wide, *squares = sums + n_rows * m.wide;
    float *padded = squares + n_rows * m.wide;
    memset(centred, 0, sizeof(float) * (size_t)(m.tall * m.wide));
    memset(padded, 0, sizeof(float) * (size_t)((h + 2 * ROWS - 2) * w));
    for (size k = 0; k < n; k++, template += h * w, area += n_rows * n_columns, out += m.down * m.across) {
        float norm = 0;
        for (size i = 0; i < h * w; i++)
            norm += template[i] * template[i];
        memcpy(padded + (ROWS - 1) * w, template, sizeof(float) * (size_t)(h * w));
        centre(&m, area, centred);
        sum_across(&m, centred, sums, squares);
        for (size y = 0; y < m.down; y += ROWS)
            for (size x = 0; x < m.across; x += COLUMNS) {
                lanes products[ROWS] = {{0}};
                const size columns = m.across - x < COLUMNS ? m.across - x : COLUMNS;
                multiply(&m, padded, centred, x, y, products);
                for (size r = 0; r < ROWS && y + r < m.down; r++)
                    memcpy(out + (y + r) * m.across + x, &products[r], sizeof(float) * (size_t)columns);
            }
        normalise(&m, sums, squares, sqrtf(norm), flat, out);
    }
}

/* Greedy suppression: numbers of the boxes (n, 4), best first, that share less than most of the smaller area with every
 * better one that is kept -> kept (limit). Returns how many those are.
 */
KERNEL size edge_vad_suppress(const float *boxes, float most, int64_t *kept, size n, size limit)
{
    size n_kept = 0;
    for (size i = 0; i < n && n_kept < limit; i++) {
        const float *a = boxes + 4 * i, area = (a[2] - a[0]) * (a[3] - a[1]);
        int apart = 1;
        for (size j = 0; j < n_kept && apart; j++) {
            const float *b = boxes + 4 * kept[j], other = (b[2] - b[0]) * (b[3] - b[1]);
            const float width = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), height = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
            apart = fmaxf(width, 0) * fmaxf(height, 0) / fminf(area, other) < most;
        }
        if (apart)
            kept[n_kept++] = i;
    }
    return n_kept;
}

/* A search graph as hnswlib lays it out. ground: a record for each row, its links on layer 0 and, at at_vector, its numbers;
 * upper: the links of its layers 1 and above, those of a row one after another from first[row] on. A list of links is a
 * count and room for link_bytes / 4 - 1 rows. */
typedef struct {
    const uint8_t *ground, *upper;
    const int64_t *first;
    int64_t record_bytes, at_vector, upper_bytes, n_dims, n_rows, entry, top;
} graph;

typedef struct {
    float squared;
    uint32_t row; /* the highest bit: its links have been followed */
} candidate;

#define FOLLOWED 0x80000000u
#define MOST_LINKS 128

INLINE const uint32_t *links_of(const graph *g, uint32_t row)
{
    return (const uint32_t *)(g->ground + row * g->record_bytes);
}

INLINE const float *vector_of(const graph *g, uint32_t row)
{
    return (const float *)(g->ground + row * g->record_bytes + g->at_vector);
}

/* Every line of memory of a record: the next ones are on their way while the first is worked on. */
INLINE void fetch(const graph *g, uint32_t row)
{
    const uint8_t *record = g->ground + row * g->record_bytes;
    for (int64_t byte = g->at_vector; byte < g->record_bytes; byte += 64)
        __builtin_prefetch(record + byte);
}

INLINE float squared_distance(const float *a, const float *b, int64_t n_dims)
{
    float sum = 0;
    for (int64_t i = 0; i < n_dims; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* The row that is nearest on layer 1, coming from the top (Malkov and Yashunin 2018, algorithm 5, first half). */
INLINE uint32_t descend(const graph *g, const float *query, float *squared)
{
    uint32_t row = (uint32_t)g->entry;
    *squared = squared_distance(query, vector_of(g, row), g->n_dims);
    for (int64_t layer = g->top; layer > 0; layer--)
        for (int closer = 1; closer;) {
            closer = 0;
            const uint32_t *links = (const uint32_t *)(g->upper + (g->first[row] + layer - 1) * g->upper_bytes);
            for (uint32_t i = 1; i <= links[0]; i++)
                fetch(g, links[i]);
            for (uint32_t i = 1; i <= links[0]; i++) {
                const float found = squared_distance(query, vector_of(g, links[i]), g->n_dims);
                if (found < *squared) {
                    *squared = found;
                    row = links[i];
                    closer = 1;
                }
            }
        }
    return row;
}

/* One more candidate in a beam of at most ef, nearest first; returns its place, ef where it is too far away. */
INLINE size insert(candidate *beam, size *held, size ef, candidate fresh)
{
    if (*held == ef && !(fresh.squared < beam[ef - 1].squared))
        return ef;
    size at = *held < ef ? (*held)++ : ef - 1;
    for (; at > 0 && beam[at - 1].squared > fresh.squared; at--)
        beam[at] = beam[at - 1];
    beam[at] = fresh;
    return at;
}

/* The k rows that are nearest to each of n queries (n, n_dims), of ef candidates (algorithm 2): rows and squared distances
 * (n, k), ascending. beam: room for ef candidates; seen (n_rows): zeros. Returns how many queries found k rows; the first
 * that did not ends the search.
 */
KERNEL size edge_vad_neighbours(const graph *g, const float *queries, size n, size ef, size k, candidate *beam,
                                uint16_t *seen, int64_t *rows, float *squared)
{
    uint16_t mark = 0;
    for (size q = 0; q < n; q++, queries += g->n_dims, rows += k, squared += k) {
        if (++mark == 0) {
            memset(seen, 0, sizeof(uint16_t) * (size_t)g->n_rows);
            mark = 1;
        }
        size held = 1, next = 0;
        beam[0].row = descend(g, queries, &beam[0].squared);
        seen[beam[0].row] = mark;
        while (next < held) {
            const uint32_t *links = links_of(g, beam[next].row);
            uint32_t fresh[MOST_LINKS];
            size n_fresh = 0, first = next + 1;
            beam[next].row |= FOLLOWED;
            for (uint32_t i = 1; i <= links[0]; i++)
                if (seen[links[i]] != mark) {
                    seen[links[i]] = mark;
                    fetch(g, links[i]);
                    fresh[n_fresh++] = links[i];
                }
            for (size i = 0; i < n_fresh; i++) {
                const float away = squared_distance(queries, vector_of(g, fresh[i]), g->n_dims);
                const size at = insert(beam, &held, ef, (candidate){away, fresh[i]});
                if (at < ef)
                    __builtin_prefetch(links_of(g, fresh[i]));
                if (at < first)
                    first = at;
            }
            for (next = first; next < held && beam[next].row & FOLLOWED;)
                next++;
        }
        if (held < k)
            return q;
        for (size i = 0; i < k; i++) {
            rows[i] = beam[i].row & ~FOLLOWED;
            squared[i] = beam[i].squared;
        }
    }
    return n;
}
