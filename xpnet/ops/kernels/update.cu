// The optimizer's side of a step on flat arrays, and the record of it in Control.  `step` calls
// `formula(T &a0, ..., double lr, double t, double norm)`; kernels/update.py writes its lists of arrays.

// S: the type of the loss.  R: of the factor.
#ifndef S
#define S T
#endif
#ifndef R
#define R double
#endif
#ifndef PARAMETERS
#define PARAMETERS T *a0
#define COUNT 1
#define LOAD(e, i) e[0] = a0[i]
#define STORE(e, i) a0[i] = e[0]
#define ELEMENTS(e) e[0]
__device__ inline void formula(T &a0, double lr, double t, double norm) {}
#endif

__device__ inline bool is_finite(double v) { return v - v == 0; }

__device__ inline int index_in_grid() { return blockIdx.y * THREADS + threadIdx.x; }
__device__ inline int threads_in_grid() { return gridDim.y * THREADS; }

// use(i, g[i]) for all i = start, start + by, ... < stop, four loads under way at a time.
template <class Use>
__device__ inline void each(const T *g, i64 start, i64 stop, i64 by, Use use) {
    i64 i = start;
    for (; i + 3 * by < stop; i += 4 * by) {
        T v0 = g[i], v1 = g[i + by], v2 = g[i + 2 * by], v3 = g[i + 3 * by];
        use(i, v0);
        use(i + by, v1);
        use(i + 2 * by, v2);
        use(i + 3 * by, v3);
    }
    for (; i < stop; i += by) use(i, g[i]);
}

// This thread's sum of the squares of grads over [start, stop), in double: those of float32 cannot overflow there.
// With a clip above 0, grads are limited to it first, in place.
__device__ inline double squares_of(T *grads, i64 start, i64 stop, double clip) {
    double squares = 0;
    T limit = (T)clip;
    each(grads, start + index_in_grid(), stop, threads_in_grid(), [&](i64 i, T g) {
        if (clip > 0) {
            g = g > limit ? limit : g < -limit ? -limit : g;  // NaN stays NaN
            grads[i] = g;
        }
        squares += (double)g * g;
    });
    return squares;
}

// *out = the sum of squares over one range.
extern "C" __global__ void square(T *grads, i64 start, i64 stop, double clip, double *partials, int *counters,
                                  double *out) {
    __shared__ double shared[THREADS];
    double squares = squares_of(grads, start, stop, clip);
    if (join_tile(squares, shared, partials, counters, 1)) *out = squares;
}

// Whether the step is to be made, from the loss and the norm of grads over [start, stop) and over `count` ranges
// whose squares are known; both go into Control.
extern "C" __global__ void judge(Control *control, T *grads, i64 start, i64 stop, const double *known, int count,
                                 const S *loss, double clip, i64 n, double *partials, int *counters) {
    __shared__ double shared[THREADS];
    double squares = squares_of(grads, start, stop, clip);
    if (!join_tile(squares, shared, partials, counters, 1)) return;
    for (int r = 0; r < count; r++) squares += known[r];
    double norm = sqrt(squares);
    bool ok = control->good && is_finite((double)*loss) && is_finite(norm);
    control->norm = norm;
    control->ok = control->good = ok;
    control->step += ok;
    control->iterations += ok;
    control->skipped += !ok;
    control->cursor += n;
}

extern "C" __global__ void step(const Control *control, i64 start, i64 stop, PARAMETERS) {
    if (!control->ok) return;
    double lr = control->rate, t = (double)control->iterations, norm = control->norm;
    const i64 by = threads_in_grid();
    for (i64 i = start + index_in_grid(); i < stop; i += 4 * by) {
        T e[4][COUNT] = {};  // all are read before one is written, so that the reads need not wait for each other
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k * by < stop) LOAD(e[k], i + k * by);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            formula(ELEMENTS(e[k]), lr, t, norm);  // of zeros too: under no condition, its numbers leave the loop
            if (i + k * by < stop) STORE(e[k], i + k * by);
        }
    }
}

extern "C" __global__ void take_over(const Control *control, T *state, const T *pending, i64 n) {
    if (!control->ok) return;
    for (i64 i = index_in_grid(); i < n; i += threads_in_grid()) state[i] = pending[i];
}

// scales[s] = what brings the norm of slot s (blockIdx.x) to the limit, if it is above.
extern "C" __global__ void slot_scales(const T *grads, const i64 *starts, const i64 *sizes, double limit,
                                       double tiny, double *partials, int *counters, T *scales) {
    __shared__ double shared[THREADS];
    double squares = 0;
    i64 start = starts[blockIdx.x];
    each(grads, start + index_in_grid(), start + sizes[blockIdx.x], threads_in_grid(),
         [&](i64, T g) { squares += (double)g * g; });
    if (!join_tile(squares, shared, partials, counters, 1)) return;
    double scale = limit / (sqrt(squares) + tiny);
    scales[blockIdx.x] = (T)(scale > 1 ? 1 : scale);
}

extern "C" __global__ void scale_slots(T *grads, const i64 *starts, const i64 *sizes, const T *scales) {
    T scale = scales[blockIdx.x];
    if (scale == 1) return;
    i64 start = starts[blockIdx.x];
    each(grads, start + index_in_grid(), start + sizes[blockIdx.x], threads_in_grid(),
         [&](i64 i, T g) { grads[i] = g * scale; });
}

// The fields whose bit is set, counted in the order of Control.
extern "C" __global__ void write_control(Control *control, int fields, u64 step, i64 iterations, double rate,
                                         double norm, i64 cursor, i64 skipped, int ok, int good, const void *x,
                                         const void *y, const void *w, const i64 *order) {
    if (fields & 1 << 0) control->step = step;
    if (fields & 1 << 1) control->iterations = iterations;
    if (fields & 1 << 2) control->rate = rate;
    if (fields & 1 << 3) control->norm = norm;
    if (fields & 1 << 4) control->cursor = cursor;
    if (fields & 1 << 5) control->skipped = skipped;
    if (fields & 1 << 6) control->ok = ok;
    if (fields & 1 << 7) control->good = good;
    if (fields & 1 << 8) control->x = x;
    if (fields & 1 << 9) control->y = y;
    if (fields & 1 << 10) control->w = w;
    if (fields & 1 << 11) control->order = order;
}

// total += values * factor, the factor being by where there is no array of it.
extern "C" __global__ void accumulate(double *total, const T *values, const R *factor, double by, int n) {
    double f = factor ? (double)*factor : by;
    for (int i = index_in_grid(); i < n; i += threads_in_grid()) total[i] += (double)values[i] * f;
}
