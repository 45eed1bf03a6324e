/* A CUDA runtime and driver with one GPU that computes nothing: enough for PyTorch to trace with fake tensors on "cuda".

   gcc -shared -fPIC -w fake_cuda.c -o libcuda.so.1 */

#define OK return 0

typedef unsigned long size;
extern void *dlsym(void *, const char *);
extern void *malloc(size);

int cudaGetDeviceCount(int *n) { *n = 1; OK; }
int cudaGetDevice(int *d) { *d = 0; OK; }
int cudaSetDevice(int d) { OK; }
int cudaInitDevice() { OK; }
int cudaGetLastError(void) { OK; }
int cudaPeekAtLastError(void) { OK; }
const char *cudaGetErrorString(int e) { return "this is no real GPU"; }
const char *cudaGetErrorName(int e) { return "fake"; }
int cudaDriverGetVersion(int *v) { *v = 13000; OK; }
int cudaRuntimeGetVersion(int *v) { *v = 13000; OK; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = 9; OK; }
int cudaGetDeviceProperties(char *p, int d) { for (int i = 0; i < 700; i++) p[i] = 0; OK; }
int cudaGetDeviceProperties_v2(char *p, int d) { return cudaGetDeviceProperties(p, d); }
int cudaDeviceGetPCIBusId(char *p, int n, int d) { p[0] = 0; OK; }
int cudaDeviceCanAccessPeer(int *v, int a, int b) { *v = 0; OK; }
int cudaDeviceGetStreamPriorityRange(int *a, int *b) { *a = 0; *b = -5; OK; }
int cudaDeviceSynchronize(void) { OK; }
int cudaMemGetInfo(size *a, size *b) { *a = 80000000000UL; *b = 84000000000UL; OK; }
int cudaMalloc(void **p, size n) { return 2; }
int cudaFree(void *p) { OK; }
int cudaHostAlloc(void **p, size n, unsigned f) { *p = malloc(n); OK; }
int cudaFreeHost(void *p) { OK; }
int cudaPointerGetAttributes(void *a, void *p) { OK; }
int cudaStreamCreateWithPriority(void **s, unsigned f, int p) { *s = (void *)8; OK; }
int cudaStreamGetPriority(void *s, int *p) { *p = 0; OK; }
int cudaStreamIsCapturing(void *s, int *v) { *v = 0; OK; }
int cudaStreamGetCaptureInfo(void *s, int *v, ...) { *v = 0; OK; }
int cudaStreamGetCaptureInfo_v2(void *s, int *v, ...) { *v = 0; OK; }
int cudaStreamGetCaptureInfo_v3(void *s, int *v, ...) { *v = 0; OK; }
int cudaStreamSynchronize(void *s) { OK; }
int cudaStreamQuery(void *s) { OK; }
int cudaStreamWaitEvent(void *s, void *e, unsigned f) { OK; }
int cudaEventCreateWithFlags(void **e, unsigned f) { *e = (void *)16; OK; }
int cudaEventRecord(void *e, void *s) { OK; }
int cudaEventRecordWithFlags(void *e, void *s, unsigned f) { OK; }
int cudaEventQuery(void *e) { OK; }
int cudaEventSynchronize(void *e) { OK; }
int cudaEventDestroy(void *e) { OK; }
int cudaThreadExchangeStreamCaptureMode(int *m) { OK; }
int cudaFuncGetAttributes(void *a, void *f) { OK; }

int cuInit(unsigned f) { OK; }
int cuCtxGetCurrent(void **c) { *c = 0; OK; }
int cuDevicePrimaryCtxGetState(int d, unsigned *f, int *a) { *f = 0; *a = 0; OK; }
int cuGetErrorString(int e, const char **s) { *s = "this is no real GPU"; OK; }
int cuGetErrorName(int e, const char **s) { *s = "fake"; OK; }
int cuGetProcAddress(const char *n, void **p, int v, size f) { *p = dlsym(0, n); return *p ? 0 : 500; }
int cuGetProcAddress_v2(const char *n, void **p, int v, size f, void *s) { return cuGetProcAddress(n, p, v, f); }
