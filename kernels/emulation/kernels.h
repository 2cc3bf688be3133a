// The kernels of the library, and the one way to run them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace emulation {

struct Kernel {
    std::string entry;
    // Name of its file, without folder and extension.
    std::string file;
    void (*function)();
    void (*call)(void (*kernel)(), const void* params, void* const* buffers);
    size_t params_len;
    int buffers;
};

std::vector<Kernel>& kernels();

}  // namespace emulation

// Runs kernel `entry` on a grid. 0, or 1 and the reason in `error` (cut to `error_len`, ends with a zero byte).
extern "C" __attribute__((visibility("default"))) int veilsum_launch(
    const char* entry, unsigned grid_x, unsigned grid_y, unsigned threads, unsigned shared_bytes, const void* params,
    size_t params_len, void* const* buffers, int n, unsigned long long seed, char* error, size_t error_len);
