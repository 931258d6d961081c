// Arrays from one memory order or type to another.  S: the type of what is read, T: of what is written,
// I: a whole number that holds the number of elements.

const int THREADS = 256;
const int TILE = 1 << 10;    // elements of a tile: 2^bits samples of TILE >> bits positions
const int SAMPLES = 32;      // the most samples of a tile
const int POSITIONS = 256;   // the most positions: 4 samples

// A map is a matrix with a row a position (h, c, w) and a column a sample; conventional memory is about its
// transpose.  A tile of it goes through shared memory, so that neighbouring threads have neighbouring addresses on
// both sides.  Positions are numbered in the order that the conventional array has them in memory, whatever it is:
// number q is (q0, q1, q2) along axes of sizes (., D1, D2), which lies at q0 * a0 + q1 * a1 + q2 * a2 of a sample and
// is row q0 * b0 + q1 * b1 + q2 * b2 of the map (the sizes of a sample in bits of elements; b has N in it).
struct Order {
    unsigned D1, D2;
    i64 a0, a1, a2, b0, b1, b2;
};

struct Tile {
    int samples, positions;  // its size
    unsigned q;              // where it begins
    i64 n;
};

__device__ inline Tile tile_of_block(unsigned Q, int bits) {
    Tile tile;
    tile.samples = 1 << bits;
    tile.positions = TILE >> bits;
    const unsigned across = (Q + tile.positions - 1) / tile.positions;
    tile.q = blockIdx.x % across * tile.positions;
    tile.n = (i64)(blockIdx.x / across) * tile.samples;
    return tile;
}

// Where the positions of a tile lie, worked out once: a thread a position.
__device__ inline void locate(Tile tile, unsigned Q, Order o, i64 *in_sample, i64 *in_map) {
    const unsigned q = tile.q + threadIdx.x;
    if (threadIdx.x < tile.positions && q < Q) {
        const unsigned q2 = q % o.D2, q1 = q / o.D2 % o.D1, q0 = q / o.D2 / o.D1;
        in_sample[threadIdx.x] = q0 * o.a0 + q1 * o.a1 + q2 * o.a2;
        in_map[threadIdx.x] = q0 * o.b0 + q1 * o.b1 + q2 * o.b2;
    }
}

// Sample n of the map is sample order[n] of x, or n where order is null.
__device__ inline void to_map(const S *x, const i64 *order, T *out, i64 N, unsigned Q, int bits, i64 stride, Order o) {
    __shared__ T values[TILE + POSITIONS];  // one more a row, or the threads of a column would share a bank
    __shared__ i64 in_sample[POSITIONS], in_map[POSITIONS], sample[SAMPLES];
    const int t = threadIdx.x;
    const Tile tile = tile_of_block(Q, bits);
    locate(tile, Q, o, in_sample, in_map);
    if (t < tile.samples && tile.n + t < N) sample[t] = (order ? order[tile.n + t] : tile.n + t) * stride;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        const int i = k * THREADS + t, q = i & (tile.positions - 1), n = i >> (10 - bits);
        if (tile.q + q < Q && tile.n + n < N) values[q * (tile.samples + 1) + n] = (T)x[sample[n] + in_sample[q]];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        const int i = k * THREADS + t, q = i >> bits, n = i & (tile.samples - 1);
        if (tile.q + q < Q && tile.n + n < N) out[in_map[q] + tile.n + n] = values[q * (tile.samples + 1) + n];
    }
}

extern "C" __global__ void pack(
    const S *x, T *out, i64 N, unsigned Q, int bits, i64 stride, unsigned D1, unsigned D2, i64 a0, i64 a1,
    i64 a2, i64 b0, i64 b1, i64 b2
) {
    to_map(x, nullptr, out, N, Q, bits, stride, {D1, D2, a0, a1, a2, b0, b1, b2});
}

extern "C" __global__ void gather_map(
    const Control *control, T *out, i64 N, unsigned Q, int bits, i64 stride, unsigned D1, unsigned D2, i64 a0, i64 a1,
    i64 a2, i64 b0, i64 b1, i64 b2
) {
    const i64 *order = control->order + control->cursor;
    to_map((const S *)control->x, order, out, N, Q, bits, stride, {D1, D2, a0, a1, a2, b0, b1, b2});
}

extern "C" __global__ void unpack(
    const S *x, T *out, i64 N, unsigned Q, int bits, i64 stride, unsigned D1, unsigned D2, i64 a0, i64 a1,
    i64 a2, i64 b0, i64 b1, i64 b2
) {
    __shared__ T values[TILE + POSITIONS];
    __shared__ i64 in_sample[POSITIONS], in_map[POSITIONS];
    const int t = threadIdx.x;
    const Tile tile = tile_of_block(Q, bits);
    locate(tile, Q, {D1, D2, a0, a1, a2, b0, b1, b2}, in_sample, in_map);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        const int i = k * THREADS + t, q = i >> bits, n = i & (tile.samples - 1);
        if (tile.q + q < Q && tile.n + n < N) values[q * (tile.samples + 1) + n] = (T)x[in_map[q] + tile.n + n];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        const int i = k * THREADS + t, q = i & (tile.positions - 1), n = i >> (10 - bits);
        if (tile.q + q < Q && tile.n + n < N)
            out[(tile.n + n) * stride + in_sample[q]] = values[q * (tile.samples + 1) + n];
    }
}

// Four elements that are read and written at once.
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Four {
    T a, b, c, d;
};

__device__ inline void fill(T &e, T value) { e = value; }
__device__ inline void fill(Four &e, T value) { e = {value, value, value, value}; }

// x, H rows of C runs of `run` elements, into the middle of out, whose runs begin `left` elements earlier; E is T or
// Four, and all sizes count E.
template <class E>
__device__ inline void pad_map(const E *x, E *out, I size, I H, I C, I run, I padded, I top, I left, T value) {
    const I begin = (I)blockIdx.x * TILE + threadIdx.x;
    E e[TILE / THREADS];  // all are read before one is written, so that the reads need not wait for each other
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        const I i = begin + k * THREADS;
        const I line = i / padded, h = line / C - top, j = i - line * padded - left;  // I has no sign: outside is large
        if (i < size && h < H && j < run) e[k] = x[(line - top * C) * run + j];
        else fill(e[k], value);
    }
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++)
        if (begin + k * THREADS < size) out[begin + k * THREADS] = e[k];
}

extern "C" __global__ void pad(
    const T *x, T *out, I size, I H, I C, I run, I padded, I top, I left, T value
) {
    pad_map(x, out, size, H, C, run, padded, top, left, value);
}

extern "C" __global__ void pad_by_four(
    const Four *x, Four *out, I size, I H, I C, I run, I padded, I top, I left, T value
) {
    pad_map(x, out, size, H, C, run, padded, top, left, value);
}

// out (N, D): rows order[cursor], order[cursor + 1] ... of array 0 x, 1 y or 2 w.
extern "C" __global__ void gather_rows(const Control *control, int which, T *out, I size, I D) {
    const S *rows = (const S *)(which == 0 ? control->x : which == 1 ? control->y : control->w);
    const i64 *order = control->order + control->cursor;
    const I begin = (I)blockIdx.x * TILE + threadIdx.x;
    S e[TILE / THREADS];
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        const I i = begin + k * THREADS, n = i / D;
        if (i < size) e[k] = rows[order[n] * (i64)D + (i - n * D)];
    }
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++)
        if (begin + k * THREADS < size) out[begin + k * THREADS] = (T)e[k];
}
