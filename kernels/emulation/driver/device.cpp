// The device, its context, and the names of errors.
#include <cstdio>

#include "driver.h"

namespace driver {
namespace {

constexpr int DRIVER_VERSION = 13000;

struct Named {
    int code;
    const char *name, *text;
};
// Those that the driver here returns, and some that tests inject.
constexpr Named ERRORS[] = {
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const Named* named(int code) {
    for (const Named& error : ERRORS)
        if (error.code == code) return &error;
    return nullptr;
}

bool is_device(int device) { return device == 0; }

// What the context takes with it when nobody retains it any more. A context that is lost could not be left in order.
void release_context(State& s) {
    if (s.sticky == SUCCESS) run_all();
    size_t blocks = 0;
    for (const auto& block : s.blocks) blocks += block.second.freed ? 0 : 1;
    const std::pair<size_t, const char*> left[] = {
        {s.streams.alive.size(), "streams"},  {s.events.alive.size(), "events"}, {s.modules.alive.size(), "modules"},
        {blocks, "blocks of device memory"}, {s.pinned.size(), "blocks of page-locked memory"},
    };
    for (const auto& [count, what] : left)
        if (count > 0 && s.sticky == SUCCESS)
            wrong("cuDevicePrimaryCtxRelease_v2", std::to_string(count) + " " + what + " are left");
    s.streams.alive.clear();
    s.events.alive.clear();
    s.modules.alive.clear();
    s.functions.alive.clear();
    s.orphans.clear();
    s.waits.clear();
    release_memory();
    s.sticky = SUCCESS;
    s.context = 0;
}

}  // namespace
}  // namespace driver

using namespace driver;

VEILSUM_EXPORT int cuDriverGetVersion(int* version) {
    const Call call("cuDriverGetVersion", Call::Nothing);
    if (call.before == SUCCESS) *version = DRIVER_VERSION;
    return call.before;
}

VEILSUM_EXPORT int cuInit(unsigned flags) {
    const Call call("cuInit", Call::Nothing);
    if (call.before != SUCCESS) return call.before;
    if (flags != 0) return wrong("cuInit", "flags");
    state().started = true;
    return SUCCESS;
}

VEILSUM_EXPORT int cuDeviceGetCount(int* count) {
    const Call call("cuDeviceGetCount", Call::Start);
    if (call.before == SUCCESS) *count = 1;
    return call.before;
}

VEILSUM_EXPORT int cuDeviceGet(int* device, int ordinal) {
    const Call call("cuDeviceGet", Call::Start);
    if (call.before != SUCCESS) return call.before;
    if (!is_device(ordinal)) return wrong("cuDeviceGet", "there is one device", INVALID_DEVICE);
    *device = 0;
    return SUCCESS;
}

VEILSUM_EXPORT int cuDeviceGetName(char* name, int len, int device) {
    const Call call("cuDeviceGetName", Call::Start);
    if (call.before != SUCCESS) return call.before;
    if (!is_device(device) || len <= 0) return wrong("cuDeviceGetName", "device or length");
    std::snprintf(name, static_cast<size_t>(len), "emulated card");
    return SUCCESS;
}

VEILSUM_EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    const Call call("cuDeviceTotalMem_v2", Call::Start);
    if (call.before != SUCCESS) return call.before;
    if (!is_device(device)) return wrong("cuDeviceTotalMem_v2", "there is one device", INVALID_DEVICE);
    *bytes = state().total;
    return SUCCESS;
}

VEILSUM_EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
    const Call call("cuDeviceGetAttribute", Call::Start);
    if (call.before != SUCCESS) return call.before;
    if (!is_device(device)) return wrong("cuDeviceGetAttribute", "there is one device", INVALID_DEVICE);
    switch (attribute) {
        case 75: *value = 9; return SUCCESS;           // compute capability, major
        case 76: *value = 0; return SUCCESS;           // minor
        case 97: *value = 227 * 1024; return SUCCESS;  // shared memory that a block may ask for
        case 115: *value = 1; return SUCCESS;          // memory pools
        default: return wrong("cuDeviceGetAttribute", "attribute " + std::to_string(attribute) + " is not emulated");
    }
}

VEILSUM_EXPORT int cuDevicePrimaryCtxRetain(void** context, int device) {
    const Call call("cuDevicePrimaryCtxRetain", Call::Start);
    if (call.before != SUCCESS) return call.before;
    if (!is_device(device)) return wrong("cuDevicePrimaryCtxRetain", "there is one device", INVALID_DEVICE);
    static uintptr_t contexts = 0;
    State& s = state();
    if (s.retained++ == 0) s.context = 0xc0de0000u + 16 * ++contexts;
    *context = reinterpret_cast<void*>(s.context);
    return SUCCESS;
}

VEILSUM_EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    const Call call("cuDevicePrimaryCtxRelease_v2", Call::Start);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    if (!is_device(device) || s.retained == 0)
        return wrong("cuDevicePrimaryCtxRelease_v2", "it is not retained", INVALID_CONTEXT);
    if (--s.retained == 0) release_context(s);
    return SUCCESS;
}

VEILSUM_EXPORT int cuCtxSynchronize() {
    const Call call("cuCtxSynchronize", Call::Context);
    return call.before != SUCCESS ? call.before : run_all();
}

VEILSUM_EXPORT int cuGetErrorName(int code, const char** text) {
    const Named* error = named(code);
    *text = error == nullptr ? nullptr : error->name;
    return error == nullptr ? INVALID_VALUE : SUCCESS;
}

VEILSUM_EXPORT int cuGetErrorString(int code, const char** text) {
    const Named* error = named(code);
    *text = error == nullptr ? nullptr : error->text;
    return error == nullptr ? INVALID_VALUE : SUCCESS;
}
