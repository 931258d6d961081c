// Batch normalization in training.

// Count, mean and sum of squared deviations of some elements.
struct Moments {
    double n, mean, m2;
};

// Of two groups together.  Chan, Golub & LeVeque, 1979, "Updating formulae and a pairwise algorithm".
__device__ inline void join(Moments &a, Moments b) {
    double n = a.n + b.n;
    if (n == 0) return;
    double d = b.mean - a.mean, part = b.n / n;
    a.mean += d * part;
    a.m2 += b.m2 + d * d * a.n * part;
    a.n = n;
}

// mean, the biased var, and slope = 1 / sqrt(var + epsilon), each (F,).
//
// A thread sums its deviations from the first element it sees and their squares.  As that is one of its own m
// elements, the squares come to at most m + 1 times the true sum m2: no mean, however large, costs more digits.
extern "C" __global__ void norm_statistics(const T *x, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb,
                                           double epsilon, Moments *partials, int *counters, T *mean, T *var,
                                           T *slope) {
    __shared__ Moments shared[THREADS];
    Path p = path(A, F, B, lanes);
    Strides s = {sa, sf, sb};
    T first = 0, sum = 0, squares = 0;
    i64 n = 0;
    visit(
        p, s, s, [&](i64 i, i64) { return x[i]; },
        [&](i64, i64, T v) {
            if (n++ == 0) first = v;
            T d = v - first;
            sum += d;
            squares += d * d;
        });
    Moments all = {(double)n, 0, 0};
    if (n) {
        all.mean = first + (double)sum / n;
        all.m2 = squares - (double)sum * sum / n;
    }
    bool mine = join_tile(all, shared, partials, counters, kept(B, lanes));
    if (mine && p.feature < F) {
        double v = all.m2 < 0 ? 0 : all.m2 / all.n;  // NaN stays NaN
        mean[p.feature] = (T)all.mean;
        var[p.feature] = (T)v;
        slope[p.feature] = (T)(1 / sqrt(v + epsilon));
    }
}

// y = weight (x - mean) slope + bias
extern "C" __global__ void norm_apply(const T *x, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb, T *y,
                                      i64 ya, i64 yf, i64 yb, const T *mean, const T *slope, const T *weight,
                                      const T *bias) {
    Path p = path(A, F, B, lanes);
    if (p.feature >= F) return;
    T m = mean[p.feature], scale = slope[p.feature] * weight[p.feature], add = bias[p.feature];
    visit(
        p, Strides{sa, sf, sb}, Strides{ya, yf, yb}, [&](i64 i, i64) { return x[i]; },
        [&](i64, i64 j, T v) { y[j] = (v - m) * scale + add; });
}

// new = momentum old + (1 - momentum) batch; the running variance is the unbiased one, `unbias` times var.  And the
// number of batches.
extern "C" __global__ void running_statistics(const T *mean, const T *var, int F, double momentum, double unbias,
                                              const T *old_mean, const T *old_var, const T *batches, T *new_mean,
                                              T *new_var, T *new_batches) {
    int f = blockIdx.x * THREADS + threadIdx.x;
    if (f == 0) *new_batches = *batches + 1;
    if (f >= F) return;
    T keep = (T)momentum, take = (T)(1 - momentum);
    new_mean[f] = keep * old_mean[f] + take * mean[f];
    new_var[f] = keep * old_var[f] + take * var[f] * (T)unbias;
}

struct Slopes {
    double dweight, dbias;
};

__device__ inline void join(Slopes &a, Slopes b) {
    a.dweight += b.dweight;
    a.dbias += b.dbias;
}

struct Both {
    T dy, x;
};

// dweight = sum of dy xhat and dbias = sum of dy, with xhat = (x - mean) slope.
extern "C" __global__ void norm_slopes(const T *dy, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb,
                                       const T *x, i64 xa, i64 xf, i64 xb, const T *mean, const T *slope,
                                       Slopes *partials, int *counters, T *dweight, T *dbias) {
    __shared__ Slopes shared[THREADS];
    Path p = path(A, F, B, lanes);
    T m = p.feature < F ? mean[p.feature] : (T)0, scale = p.feature < F ? slope[p.feature] : (T)0;
    T product = 0, sum = 0;
    visit(
        p, Strides{sa, sf, sb}, Strides{xa, xf, xb}, [&](i64 i, i64 j) { return Both{dy[i], x[j]}; },
        [&](i64, i64, Both v) {
            product += v.dy * ((v.x - m) * scale);
            sum += v.dy;
        });
    Slopes all = {(double)product, (double)sum};
    bool mine = join_tile(all, shared, partials, counters, kept(B, lanes));
    if (mine && p.feature < F) {
        dweight[p.feature] = (T)all.dweight;
        dbias[p.feature] = (T)all.dbias;
    }
}

// dx = weight slope (dy - dbias / n - xhat dweight / n); n elements have the feature.  dx lies as dy does, and may
// be dy itself.
extern "C" __global__ void norm_input_grad(const T *dy, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb,
                                           const T *x, i64 xa, i64 xf, i64 xb, const T *mean, const T *slope,
                                           const T *weight, const T *dweight, const T *dbias, T *dx) {
    Path p = path(A, F, B, lanes);
    if (p.feature >= F) return;
    int f = p.feature;
    T n = (T)((double)A * B), m = mean[f], scale = slope[f];
    T gain = weight[f] * scale, center = dbias[f] / n, tilt = dweight[f] / n * scale;
    visit(
        p, Strides{sa, sf, sb}, Strides{xa, xf, xb}, [&](i64 i, i64 j) { return Both{dy[i], x[j]}; },
        [&](i64 i, i64, Both v) { dx[i] = gain * (v.dy - center - (v.x - m) * tilt); });
}
