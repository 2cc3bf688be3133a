// Switching stacks: a fiber is a saved stack pointer. By hand on x86-64 (6 registers, about 2 ns), by ucontext elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

namespace emulation {

struct Context {
    void* stack = nullptr;
};

extern "C" void veilsum_switch(void** save, void* load);
__asm__(
    ".text\n"
    ".globl veilsum_switch\n"
    ".hidden veilsum_switch\n"
    ".type veilsum_switch,@function\n"
    "veilsum_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size veilsum_switch, .-veilsum_switch\n");

inline void switch_to(Context& from, Context& to) { veilsum_switch(&from.stack, to.stack); }

// The fiber begins in `body`, which never returns, with the stack as if it had been called.
inline void prepare(Context& context, unsigned char* stack, size_t bytes, void (*body)()) {
    auto* top = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15});
    *--top = 0;  // The return address of `body`; keeps the alignment of a call.
    *--top = reinterpret_cast<uint64_t>(body);
    for (int i = 0; i < 6; i++) *--top = 0;
    context.stack = top;
}

}  // namespace emulation

#else

#include <ucontext.h>

namespace emulation {

struct Context {
    ucontext_t saved;
};

inline void switch_to(Context& from, Context& to) { swapcontext(&from.saved, &to.saved); }

inline void prepare(Context& context, unsigned char* stack, size_t bytes, void (*body)()) {
    getcontext(&context.saved);
    context.saved.uc_stack.ss_sp = stack;
    context.saved.uc_stack.ss_size = bytes;
    context.saved.uc_link = nullptr;
    makecontext(&context.saved, body, 0);
}

}  // namespace emulation

#endif
