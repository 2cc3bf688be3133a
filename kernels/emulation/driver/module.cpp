// Modules: images that must be those of the repository, and launches of the kernels in them.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "driver.h"

namespace driver {
namespace {

constexpr uint32_t FATBIN = 0xba55ed50;
constexpr int MOST_SHARED = 227 * 1024;

struct ImageHeader {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes;
};

// The file of machine code with this content; empty if there is none.
std::string file_of(const char* image) {
    ImageHeader header;
    std::memcpy(&header, image, sizeof(header));
    const char* folder = std::getenv("EMULATED_CUDA_IMAGES");
    if (header.magic != FATBIN || folder == nullptr) return "";
    const std::string found(image, header.header_bytes + header.bytes);
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".fatbin") continue;
        std::ifstream file(entry.path(), std::ios::binary);
        if (std::string(std::istreambuf_iterator<char>(file), {}) == found) return entry.path().stem().string();
    }
    return "";
}

struct Work {
    const emulation::Kernel* kernel;
    unsigned x, y, threads, shared;
    std::vector<unsigned char> params;
    std::vector<void*> buffers;
};

Result run(const Work& work) {
    State& s = state();
    const std::string& name = work.kernel->entry;
    for (void* buffer : work.buffers) {
        std::string why;
        if (covering(reinterpret_cast<uint64_t>(buffer), 1, true, why) == nullptr)
            return wrong(name.c_str(), why, ILLEGAL_ADDRESS);
    }
    char error[512] = "";
    spend(1000 + uint64_t{10} * work.x * work.y);
    if (veilsum_launch(name.c_str(), work.x, work.y, work.threads, work.shared, work.params.data(), work.params.size(),
                       work.buffers.data(), static_cast<int>(work.buffers.size()), s.launches++, error, sizeof(error)) != 0)
        return wrong(name.c_str(), error, LAUNCH_FAILED);
    for (void* buffer : work.buffers)
        if (!intact(reinterpret_cast<uint64_t>(buffer)))
            return wrong(name.c_str(), "it wrote behind its memory", ILLEGAL_ADDRESS);
    return SUCCESS;
}

}  // namespace
}  // namespace driver

using namespace driver;

VEILSUM_EXPORT int cuModuleLoadData(void** module, const void* image) {
    const Call call("cuModuleLoadData", Call::Context);
    if (call.before != SUCCESS) return call.before;
    if (image == nullptr || reinterpret_cast<uintptr_t>(image) % 8 != 0)
        return wrong("cuModuleLoadData", "the image does not start at 8 bytes", INVALID_IMAGE);
    const std::string file = file_of(static_cast<const char*>(image));
    if (file.empty()) return wrong("cuModuleLoadData", "no machine code of the repository", INVALID_IMAGE);
    *module = state().modules.add(Module{file});
    return SUCCESS;
}

VEILSUM_EXPORT int cuModuleUnload(void* handle) {
    const Call call("cuModuleUnload", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    if (s.modules.find(handle) == nullptr)
        return wrong("cuModuleUnload", std::string("a module ") + s.modules.fault(handle), INVALID_HANDLE);
    if (pending([&](const Step& step) { return step.module == handle; }))
        return wrong("cuModuleUnload", "a kernel of it has not run");
    for (auto f = s.functions.alive.begin(); f != s.functions.alive.end();)
        f = f->second->module == handle ? s.functions.alive.erase(f) : std::next(f);
    s.modules.alive.erase(handle);
    return SUCCESS;
}

VEILSUM_EXPORT int cuModuleGetFunction(void** function, void* handle, const char* name) {
    const Call call("cuModuleGetFunction", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const Module* module = state().modules.find(handle);
    if (module == nullptr) return wrong("cuModuleGetFunction", "no such module", INVALID_HANDLE);
    for (const emulation::Kernel& kernel : emulation::kernels()) {
        if (kernel.entry != name || kernel.file != module->file) continue;
        *function = state().functions.add(Function{&kernel, module});
        return SUCCESS;
    }
    return NOT_FOUND;
}

VEILSUM_EXPORT int cuFuncSetAttribute(void* handle, int attribute, int value) {
    const Call call("cuFuncSetAttribute", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Function* function = state().functions.find(handle);
    if (function == nullptr || attribute != 8 || value < 0 || value > MOST_SHARED)
        return wrong("cuFuncSetAttribute", "no such function, no such attribute, or more than there is");
    function->most_shared = static_cast<unsigned>(value);
    return SUCCESS;
}

// The parameters by value, then pointers.
VEILSUM_EXPORT int cuFuncGetParamInfo(void* handle, size_t index, size_t* offset, size_t* bytes) {
    const Call call("cuFuncGetParamInfo", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const Function* function = state().functions.find(handle);
    if (function == nullptr) return wrong("cuFuncGetParamInfo", "no such function", INVALID_HANDLE);
    const emulation::Kernel& kernel = *function->kernel;
    if (index > static_cast<size_t>(kernel.buffers)) return INVALID_VALUE;
    const size_t start = (kernel.params_len + 7) / 8 * 8;
    if (offset != nullptr) *offset = index == 0 ? 0 : start + 8 * (index - 1);
    if (bytes != nullptr) *bytes = index == 0 ? kernel.params_len : 8;
    return SUCCESS;
}

VEILSUM_EXPORT int cuLaunchKernel(void* handle, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                                  unsigned threads_z, unsigned shared, void* on, void** params, void** extra) {
    const Call call("cuLaunchKernel", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const Function* function = state().functions.find(handle);
    Stream* stream = state().streams.find(on);
    if (function == nullptr || stream == nullptr)
        return wrong("cuLaunchKernel", "no such function, or no such stream", INVALID_HANDLE);
    const emulation::Kernel& kernel = *function->kernel;
    if (x == 0 || y == 0 || z != 1 || y > 65535 || threads == 0 || threads > 1024 || threads_y != 1 || threads_z != 1)
        return wrong("cuLaunchKernel", kernel.entry + ": a grid or a block that cannot be");
    if (shared > function->most_shared)
        return wrong("cuLaunchKernel", kernel.entry + ": more shared memory than was asked for");
    if (params == nullptr || extra != nullptr)
        return wrong("cuLaunchKernel", kernel.entry + ": a list of parameters is expected");
    auto work = std::make_shared<Work>(Work{&kernel, x, y, threads, shared, {}, {}});
    const auto* first = static_cast<const unsigned char*>(params[0]);
    work->params.assign(first, first + kernel.params_len);
    for (int i = 1; i <= kernel.buffers; i++) {
        uint64_t address = 0;
        std::string why;
        std::memcpy(&address, params[i], sizeof(address));
        if (covering(address, 1, false, why) == nullptr)
            return wrong("cuLaunchKernel", kernel.entry + ", buffer " + std::to_string(i) + ": " + why);
        if (address % 16 != 0) return wrong("cuLaunchKernel", kernel.entry + ": a buffer that does not start at 16 bytes");
        work->buffers.push_back(reinterpret_cast<void*>(address));
    }
    Step step{"launch", [work] { return run(*work); }};
    step.module = function->module;
    return enqueue(*stream, std::move(step));
}
