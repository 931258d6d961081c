// Bias and activation, forward and backward, and sums over everything but the features.  The caller provides
// `T activate(T z)` and `T slope(T dy, T kept)`.

// out[f] = sum of a over all else.
extern "C" __global__ void feature_sum(const T *a, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb,
                                       double *partials, int *counters, T *out) {
    __shared__ double shared[THREADS];
    Path p = path(A, F, B, lanes);
    Strides s = {sa, sf, sb};
    T sum = 0;
    visit(p, s, s, [&](i64 i, i64) { return a[i]; }, [&](i64, i64, T v) { sum += v; });
    double total = sum;
    bool mine = join_tile(total, shared, partials, counters, kept(B, lanes));
    if (mine && p.feature < F) out[p.feature] = (T)total;
}

// y = activate(z + bias[f]).  bias may be null.  y (of strides ya, yf, yb) may be z itself; else z becomes z + bias.
extern "C" __global__ void finish(T *z, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb, T *y, i64 ya,
                                  i64 yf, i64 yb, const T *bias) {
    Path p = path(A, F, B, lanes);
    T add = bias && p.feature < F ? bias[p.feature] : (T)0;
    bool sum = bias && y != z;
    visit(
        p, Strides{sa, sf, sb}, Strides{ya, yf, yb}, [&](i64 i, i64) { return z[i]; },
        [&](i64 i, i64 j, T v) {
            if (sum) z[i] = v + add;
            y[j] = activate(v + add);
        });
}

// dy = slope(dy, kept), in place, and dbias[f] = the sum of that.  kept (of strides ka, kf, kb) and dbias may be
// null.
extern "C" __global__ void finish_backward(T *dy, int A, int F, int B, int lanes, i64 sa, i64 sf, i64 sb,
                                           const T *memo, i64 ka, i64 kf, i64 kb, double *partials,
                                           int *counters, T *dbias) {
    __shared__ double shared[THREADS];
    struct Both {
        T dy, memo;
    };
    Path p = path(A, F, B, lanes);
    T sum = 0;
    visit(
        p, Strides{sa, sf, sb}, Strides{ka, kf, kb},
        [&](i64 i, i64 j) { return Both{dy[i], memo ? memo[j] : (T)0}; },
        [&](i64 i, i64, Both v) {
            T dz = slope(v.dy, v.memo);
            dy[i] = dz;
            sum += dz;
        });
    if (!dbias) return;  // the whole grid does
    double total = sum;
    bool mine = join_tile(total, shared, partials, counters, kept(B, lanes));
    if (mine && p.feature < F) dbias[p.feature] = (T)total;
}
