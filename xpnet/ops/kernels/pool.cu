// Pooling of maps x (H, C, W, N), padded already, to y (OH, C, OW, N), and back.  A thread has VECTOR elements along n.
//
// Back, a thread gathers for elements of dx what the windows over them send, in the order of the reference (by kernel
// row, then kernel column), so the bits are its as well.  Windows that do not overlap take a shorter way: a thread has
// a window and writes all of dx under it.
//
// Macros from conv.py: VECTOR, INDEX (int, or i64 where a map is too large for it), the window.

struct alignas(VECTOR * sizeof(T)) Run { T v[VECTOR]; };

// The place in a map (rows, C, columns, N) where the thread's elements begin.
struct Place { INDEX n, column, c, row; };

__device__ inline INDEX first_element() { return ((INDEX)blockIdx.x * blockDim.x + threadIdx.x) * VECTOR; }

__device__ inline Place place(INDEX e, int C, int columns, int N) {
    const INDEX q = e / N, r = q / columns;
    return {e % N, q % columns, r % C, r / C};
}

__device__ inline INDEX offset(INDEX row, INDEX c, INDEX column, INDEX n, int C, int columns, int N) {
    return ((row * C + c) * columns + column) * N + n;
}

__device__ inline Run load(const T *p) { return *(const Run *)p; }

// f(offset in y, kernel row, kernel column) of every window over an element of x.
template <class F>
__device__ inline void each_window(const Place &at, int C, int OH, int OW, int N, F f) {
    for (INDEX oh = min(at.row / SH, (INDEX)(OH - 1)); oh >= 0 && at.row - oh * SH <= (KH - 1) * DH; oh--) {
        if ((at.row - oh * SH) % DH) continue;
        for (INDEX ow = min(at.column / SW, (INDEX)(OW - 1)); ow >= 0 && at.column - ow * SW <= (KW - 1) * DW; ow--)
            if ((at.column - ow * SW) % DW == 0)
                f(offset(oh, at.c, ow, at.n, C, OW, N), (int)(at.row - oh * SH) / DH, (int)(at.column - ow * SW) / DW);
    }
}

extern "C" __global__ void max_forward(const T *__restrict__ x, T *__restrict__ y, i64 count, int C, int H, int W,
                                       int OH, int OW, int N) {
    const INDEX e = first_element();
    if (e >= count) return;
    const Place at = place(e, C, OW, N);
    x += offset(at.row * SH, at.c, at.column * SW, at.n, C, W, N);
    Run most = load(x);
    for (int i = 0; i < KH; i++)
        for (int j = 0; j < KW; j++) {
            const Run run = load(x + ((INDEX)(i * DH) * C * W + j * DW) * N);
            for (int v = 0; v < VECTOR; v++)  // a NaN stays, as nothing is larger
                if (run.v[v] > most.v[v] || run.v[v] != run.v[v]) most.v[v] = run.v[v];
        }
    *(Run *)(y + e) = most;
}

// dx = dy where x is the first of its window, row by row, that equals y, and 0 elsewhere.  Where y is NaN none does.
extern "C" __global__ void max_backward(const T *__restrict__ dy, const T *__restrict__ x, const T *__restrict__ y,
                                        T *__restrict__ dx, i64 count, int C, int H, int W, int OH, int OW, int N) {
    const INDEX e = first_element();
    if (e >= count) return;
    const Place at = place(e, C, W, N);
    const Run own = load(x + e);
    Run sum = {};
    each_window(at, C, OH, OW, N, [&](INDEX o, int i, int j) {
        const Run most = load(y + o);
        bool hit[VECTOR], any = false;
        for (int v = 0; v < VECTOR; v++) any |= hit[v] = own.v[v] == most.v[v];
        if (!any) return;
        const T *window = x + (e - ((INDEX)(i * DH) * C * W + j * DW) * N);
        for (int a = 0; a <= i; a++)
            for (int b = 0; b < (a < i ? KW : j); b++) {
                const Run before = load(window + ((INDEX)(a * DH) * C * W + b * DW) * N);
                for (int v = 0; v < VECTOR; v++) hit[v] &= before.v[v] != most.v[v];
            }
        const Run d = load(dy + o);
        for (int v = 0; v < VECTOR; v++)
            if (hit[v]) sum.v[v] += d.v[v];
    });
    *(Run *)(dx + e) = sum;
}

// The same for windows that do not overlap.  A thread has the SH rows and SW columns that begin at a window, what lies
// between windows and behind the last one included; count: of these cells, rounded up.
extern "C" __global__ void max_backward_apart(const T *__restrict__ dy, const T *__restrict__ x,
                                              const T *__restrict__ y, T *__restrict__ dx, i64 count, int C, int H,
                                              int W, int OH, int OW, int N) {
    const INDEX e = first_element();
    if (e >= count) return;
    const Place at = place(e, C, (W + SW - 1) / SW, N);
    const bool window = at.row < OH && at.column < OW;
    const INDEX o = window ? offset(at.row, at.c, at.column, at.n, C, OW, N) : at.n;
    const Run most = load(y + o), d = load(dy + o);
    bool free[VECTOR];
    for (int v = 0; v < VECTOR; v++) free[v] = window;
    for (int i = 0; i < SH && at.row * SH + i < H; i++)
        for (int j = 0; j < SW && at.column * SW + j < W; j++) {
            const INDEX p = offset(at.row * SH + i, at.c, at.column * SW + j, at.n, C, W, N);
            const bool inside = i % DH == 0 && i / DH < KH && j % DW == 0 && j / DW < KW;
            Run run = {};
            if (inside) {
                const Run own = load(x + p);
                for (int v = 0; v < VECTOR; v++) {
                    const bool hit = free[v] && own.v[v] == most.v[v];
                    free[v] &= !hit;
                    run.v[v] = hit ? d.v[v] : T(0);
                }
            }
            *(Run *)(dx + p) = run;
        }
}

extern "C" __global__ void sum_forward(const T *__restrict__ x, T *__restrict__ y, i64 count, int C, int H, int W,
                                       int OH, int OW, int N) {
    const INDEX e = first_element();
    if (e >= count) return;
    const Place at = place(e, C, OW, N);
    x += offset(at.row * SH, at.c, at.column * SW, at.n, C, W, N);
    Run sum = {};
    for (int i = 0; i < KH; i++)
        for (int j = 0; j < KW; j++) {
            const Run run = load(x + ((INDEX)(i * DH) * C * W + j * DW) * N);
            for (int v = 0; v < VECTOR; v++) sum.v[v] += run.v[v];
        }
    *(Run *)(y + e) = sum;
}

extern "C" __global__ void sum_backward(const T *__restrict__ dy, T *__restrict__ dx, i64 count, int C, int H, int W,
                                        int OH, int OW, int N) {
    const INDEX e = first_element();
    if (e >= count) return;
    Run sum = {};
    each_window(place(e, C, W, N), C, OH, OW, N, [&](INDEX o, int, int) {
        const Run d = load(dy + o);
        for (int v = 0; v < VECTOR; v++) sum.v[v] += d.v[v];
    });
    *(Run *)(dx + e) = sum;
}
