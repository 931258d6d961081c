// Sums that several blocks share, in one launch and with the same bits every time: each block leaves a partial
// result, and the last of them to finish joins these in a fixed order.  Blocks (blockIdx.x, *, *) are a tile.
//
// And the walk over an array by features.  An array is seen as (A, F, B): maps (H, C, W, N) as A = H, F = C and
// B = W N; vectors (N, D) as A = N and B = 1, or, where they lie transposed in memory, as A = 1 and B = N.  A
// thread stays with one feature.  The block's 256 threads are rows x lanes: lanes run along B, where memory does
// too, or along the features where B is 1.

constexpr int THREADS = 256;

__device__ inline void join(double &a, double b) { a += b; }

// Threads with the same threadIdx.x % keep join their values, and threads below keep then hold the results.
template <class V>
__device__ inline V join_block(V v, V *shared, int keep) {
    int t = threadIdx.x;
    shared[t] = v;
    __syncthreads();
    for (int half = THREADS / 2; half >= keep; half >>= 1) {
        if (t < half) join(shared[t], shared[t + half]);
        __syncthreads();
    }
    return shared[t];  // which no other thread reads or writes any more: the next call needs no barrier
}

// Whether this block is the last of `blocks` that come here; every thread is told.  Takes the counter back to 0.
__device__ inline bool last_block(int *counter, int blocks) {
    __shared__ int last;
    __threadfence();  // what the block wrote is visible before the count says so
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1) == blocks - 1;
        if (last) *counter = 0;
    }
    __syncthreads();
    __threadfence();  // and nothing read from here on is older than the count
    return last;
}

// As join_block over all blocks of the tile.  True in the threads that then hold a result: those below keep, in
// one block.  shared: THREADS values; partials: keep values for each block; counters: a zero for each tile.
template <class V>
__device__ inline bool join_tile(V &v, V *shared, V *partials, int *counters, int keep) {
    int t = threadIdx.x, blocks = gridDim.y * gridDim.z;
    v = join_block(v, shared, keep);
    if (blocks == 1) return t < keep;
    partials += (i64)blockIdx.x * blocks * keep;
    if (t < keep) partials[(blockIdx.y + gridDim.y * blockIdx.z) * keep + t] = v;
    if (!last_block(counters + blockIdx.x, blocks)) return false;
    v = V();
    for (int p = t / keep; p < blocks; p += THREADS / keep) join(v, partials[p * keep + t % keep]);
    v = join_block(v, shared, keep);
    return t < keep;
}

// Where a thread goes: from (a, feature, b), na steps of da and nb steps of db.
struct Path {
    int feature, a, b, da, db, na, nb;
};

__device__ inline int steps(int first, int step, int end) {
    return first < end ? (end - 1 - first) / step + 1 : 0;
}

__device__ inline Path path(int A, int F, int B, int lanes) {
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, rows = THREADS / lanes;
    bool columns = B == 1;
    Path p;
    p.feature = columns ? blockIdx.x * lanes + lane : blockIdx.x;
    p.a = blockIdx.y * rows + row;
    p.da = gridDim.y * rows;
    p.b = columns ? 0 : blockIdx.z * lanes + lane;
    p.db = gridDim.z * lanes;
    p.na = p.feature < F ? steps(p.a, p.da, A) : 0;
    p.nb = steps(p.b, p.db, B);
    return p;
}

// How many features a block holds, and so the `keep` of its sums.
__device__ inline int kept(int B, int lanes) { return B == 1 ? lanes : 1; }

struct Strides {
    i64 a, f, b;
};

// use(i, j, load(i, j)) along the path, i being the index into an array of strides x and j into one of strides y.
// Four loads are under way before the first is used: one alone would leave two thirds of the memory's speed idle.
template <class Load, class Use>
__device__ inline void visit(const Path &p, Strides x, Strides y, Load load, Use use) {
    i64 i0 = p.a * x.a + p.feature * x.f + p.b * x.b, j0 = p.a * y.a + p.feature * y.f + p.b * y.b;
    bool along_b = p.nb >= p.na;  // the longer loop inside
    int outer = along_b ? p.na : p.nb, inner = along_b ? p.nb : p.na;
    i64 xa = p.da * x.a, xb = p.db * x.b, ya = p.da * y.a, yb = p.db * y.b;
    i64 di0 = along_b ? xa : xb, di = along_b ? xb : xa, dj0 = along_b ? ya : yb, dj = along_b ? yb : ya;
    for (; outer > 0; outer--, i0 += di0, j0 += dj0) {
        i64 i = i0, j = j0;
        int k = inner;
        for (; k >= 4; k -= 4, i += 4 * di, j += 4 * dj) {
            auto v0 = load(i, j);
            auto v1 = load(i + di, j + dj);
            auto v2 = load(i + 2 * di, j + 2 * dj);
            auto v3 = load(i + 3 * di, j + 3 * dj);
            use(i, j, v0);
            use(i + di, j + dj, v1);
            use(i + 2 * di, j + 2 * dj, v2);
            use(i + 3 * di, j + 3 * dj, v3);
        }
        for (; k > 0; k--, i += di, j += dj) use(i, j, load(i, j));
    }
}
