// Softmax cross-entropy with its derivative, and counts of right answers.  L neighbouring threads, a power of two,
// share a row of p and take every L-th class; D: the type of a divisor in device memory.

const int THREADS = 256;

__device__ inline T nan_if(bool bad) { return bad ? (T)nan("") : (T)0; }

// The sum of v over the threads of a row, in a fixed order, known to all of them.
__device__ inline T row_sum(T v, int L) {
    __shared__ T shared[THREADS];
    const int t = threadIdx.x;
    __syncthreads();  // the readers of the call before are done
    shared[t] = v;
    for (int half = L / 2; half; half /= 2) {
        __syncthreads();
        if ((t & (L - 1)) < half) shared[t] += shared[t + half];
    }
    __syncthreads();
    return shared[t & -L];
}

__device__ inline T row_max(T v, int L) {
    __shared__ T shared[THREADS];
    const int t = threadIdx.x;
    shared[t] = v;
    for (int half = L / 2; half; half /= 2) {
        __syncthreads();
        if ((t & (L - 1)) < half && shared[t] < shared[t + half]) shared[t] = shared[t + half];
    }
    __syncthreads();
    return shared[t & -L];
}

struct Pair {
    double a, b;
};

__device__ inline Pair block_sum(Pair v) {
    __shared__ Pair shared[THREADS];
    const int t = threadIdx.x;
    __syncthreads();
    shared[t] = v;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) {
            shared[t].a += shared[t + half].a;
            shared[t].b += shared[t + half].b;
        }
    }
    __syncthreads();
    return shared[0];
}

// Adds v up over the whole grid, in a fixed order: every block lays down its part, and the last to do so adds them.
// True for that block, which then has the sum.
__device__ inline bool grid_sum(Pair &v, volatile double *parts, int *counter) {
    __shared__ int last;
    const int t = threadIdx.x, blocks = gridDim.x;
    v = block_sum(v);
    if (blocks == 1) return true;
    if (t == 0) {
        parts[2 * blockIdx.x] = v.a;
        parts[2 * blockIdx.x + 1] = v.b;
        __threadfence();
        last = atomicAdd(counter, 1) == blocks - 1;
        if (last) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    if (!last) return false;
    v = {0, 0};
    for (int i = t; i < blocks; i += THREADS) {
        v.a += parts[2 * i];
        v.b += parts[2 * i + 1];
    }
    v = block_sum(v);
    return true;
}

// p, dp (N, K), with strides; either labels (N,) or targets (N, K); w (N,) or null; divisor in memory, or null and then
// its value `given`.  A target t becomes (1 - smoothing) t + smoothing / K.
extern "C" __global__ void crossentropy(
    const T *__restrict__ p, i64 p_row, i64 p_class, const i64 *labels, const T *__restrict__ targets, const T *w,
    const D *divisor, double given, T smoothing, int mean, T *loss, T *__restrict__ dp, i64 dp_row, i64 dp_class,
    double *parts, int *counter, int N, int K, int L
) {
    const int lane = threadIdx.x & (L - 1);
    const i64 row = (i64)blockIdx.x * (THREADS / L) + threadIdx.x / L;
    const int classes = row < N ? K : 0;  // threads without a row go along to the barriers
    const i64 n = row < N ? row : 0;
    p += n * p_row;
    dp += n * dp_row;
    double share = 1;
    if (mean) share = divisor ? (double)*divisor : given;
    if (share == 0) share = 1;  // no weight at all: a mean of nothing is zero

    T top = p[0], mass = 1, total = 0;
    for (int k = lane; k < classes; k += L) top = p[k * p_class] > top ? p[k * p_class] : top;
    top = row_max(top, L);
    for (int k = lane; k < classes; k += L) total += exp(p[k * p_class] - top);
    total = row_sum(total, L);
    i64 label = -1;
    if (labels) {
        label = labels[n];
        mass += nan_if(label < 0 || label >= K);
    } else {
        targets += n * K;
        T sum = 0;
        for (int k = lane; k < classes; k += L) sum += targets[k];
        mass = row_sum(sum, L);
    }
    mass = mass * (1 - smoothing) + smoothing;

    const T log_total = log(total), weight = (w ? w[n] : (T)1), factor = weight * (T)(1 / share);
    const T scale = mass / total;
    T sum = 0;
    for (int k = lane; k < classes; k += L) {
        const T z = p[k * p_class] - top;
        const T t = (labels ? (T)(k == label) : targets[k]) * (1 - smoothing) + smoothing / K;
        const bool impossible = z < 0 && z - z != 0;  // -inf: adds nothing, unless it is what is wanted
        if (t != 0 || !impossible) sum -= t * (z - log_total);
        dp[k * dp_class] = (exp(z) * scale - t) * factor;
    }
    sum = row_sum(sum, L);
    if (labels) sum += nan_if(label < 0 || label >= K);
    Pair all = {lane == 0 && row < N ? (double)sum * weight : 0, 0};
    if (grid_sum(all, parts, counter) && threadIdx.x == 0) *loss = (T)(all.a / share);
}

struct Best {
    T value;
    int k;
};

// Whether b is to be preferred to a: as NumPy's argmax, the first of equals, and the first NaN before all.
__device__ inline bool better(Best b, Best a) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan || b_nan) return b_nan && (!a_nan || b.k < a.k);
    return b.value > a.value || (b.value == a.value && b.k < a.k);
}

// argmax over the classes; for one output, 1 where it exceeds a half.
__device__ inline int row_argmax(const T *p, i64 p_class, int classes, int K, int L) {
    __shared__ Best shared[THREADS];
    const int t = threadIdx.x, lane = t & (L - 1);
    if (K == 1) return p[0] > (T)0.5;
    Best best = {p[0], 0};
    for (int k = lane; k < classes; k += L) {
        const Best other = {p[k * p_class], k};
        if (better(other, best)) best = other;
    }
    __syncthreads();
    shared[t] = best;
    for (int half = L / 2; half; half /= 2) {
        __syncthreads();
        if ((t & (L - 1)) < half && better(shared[t + half], shared[t])) shared[t] = shared[t + half];
    }
    __syncthreads();
    return shared[t & -L].k;
}

// out (2,), of type D: the weight of the rows whose argmax is their label (or that of their targets), and of all.
extern "C" __global__ void count_right(
    const T *p, i64 p_row, i64 p_class, const i64 *labels, const T *targets, const T *w, D *out, double *parts,
    int *counter, int N, int K, int L
) {
    const i64 row = (i64)blockIdx.x * (THREADS / L) + threadIdx.x / L;
    const int classes = row < N ? K : 0;
    const i64 n = row < N ? row : 0;
    const i64 predicted = row_argmax(p + n * p_row, p_class, classes, K, L);
    const i64 wanted = labels ? labels[n] : row_argmax(targets + n * K, 1, classes, K, L);
    const double weight = (threadIdx.x & (L - 1)) == 0 && row < N ? (w ? w[n] : (T)1) : (T)0;
    Pair all = {predicted == wanted ? weight : 0, weight};
    if (grid_sum(all, parts, counter) && threadIdx.x == 0) {
        out[0] = (D)all.a;
        out[1] = (D)all.b;
    }
}
