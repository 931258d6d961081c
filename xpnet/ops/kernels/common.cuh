// What every kernel file begins with.  Assembled by kernels/__init__.py and compiled by NVRTC (or, for tests, by
// a C++ compiler through a shim), so no header is included and only static shared memory and __syncthreads are
// used.  T: the type of the arrays, float or double.

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned short u16;

// All that a training step reads or advances on the device, so that a captured step does not freeze it.
struct Control {
    u64 step;         // optimizer steps taken, which dropout masks follow
    i64 iterations;   // steps of this optimizer; `judge` has counted the current one when the update runs
    double rate;      // learning rate of the next step
    double norm;      // of the gradient, from `judge`
    i64 cursor;       // where in `order` the next batch begins
    i64 skipped;      // steps not made since the host last looked
    int ok;           // whether the current step is to be made
    int good;         // 0 from the first step that was not finite until the host looks
    const void *x, *y, *w;  // the samples, with the sample axis first; y or w may be null
    const i64 *order;       // sample numbers
};
