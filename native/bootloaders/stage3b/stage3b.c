/* SPDX-License-Identifier: MIT */
/*
 * The encrypted bootloader of a Secure Execution image: the first code that runs in protected mode. It puts the kernel and
 * its command line where Linux expects them, passes the place of the ramdisk to it, and starts it.
 */
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "memory.h"

struct component {
    uint64_t address;
    uint64_t size; /* as the user gave it, not rounded up to pages */
};

/* The last 64 bytes of the file, filled in by the tool that builds the image. */
static const volatile struct {
    struct component kernel;
    struct component command_line; /* size 0: none; else it counts the final NUL */
    struct component ramdisk;      /* size 0: none */
    struct psw psw;                /* starts the kernel */
} arguments __attribute__((section(".arguments"), used, aligned(16)));

/* The console is opened only here: a successful start sends nothing and leaves nothing to undo. */
static __attribute__((noreturn)) void fail(const char *reason)
{
    console_open();
    console_line(reason);
    disabled_wait(STOP_INTERNAL_ERROR);
}

static int in_the_way(uint64_t address, uint64_t size)
{
    return size && address < arguments.kernel.size && address + size > KERNEL_START;
}

__attribute__((noreturn)) void stage3b(uint64_t image_start, uint64_t image_end)
{
    struct component kernel = arguments.kernel;
    struct component command_line = arguments.command_line;
    struct component ramdisk = arguments.ramdisk;
    struct psw psw = arguments.psw;
    uint64_t capacity;

    /* The first 64 KiB of a kernel file are never loaded: the file's offsets are the kernel's addresses. */
    if (kernel.size < KERNEL_START || kernel.address + KERNEL_START < KERNEL_START)
        fail("Invalid kernel");
    if (in_the_way(image_start, image_end - image_start) || in_the_way(command_line.address, command_line.size) ||
        in_the_way(ramdisk.address, ramdisk.size))
        fail("Invalid kernel: it would overwrite another component of the image");
    copy_ascending(real(KERNEL_START), real(kernel.address + KERNEL_START), kernel.size - KERNEL_START);

    capacity = load64(KERNEL_COMMAND_LINE_CAPACITY);
    if (!capacity)
        capacity = LEGACY_COMMAND_LINE_CAPACITY;
    if (command_line.size > capacity)
        fail("Command line is too large");
    if (command_line.size) {
        const volatile char *text = real(command_line.address);

        if (text[command_line.size - 1] != '\0')
            fail("Command line is not terminated");
        copy_ascending(real(KERNEL_COMMAND_LINE), (const void *)text, command_line.size);
    }
    if (ramdisk.size) {
        store64(KERNEL_RAMDISK_START, ramdisk.address);
        store64(KERNEL_RAMDISK_SIZE, ramdisk.size);
    }
    load_psw(psw.mask, psw.address);
}
