# SPDX-License-Identifier: MIT
# The compiler of everything here: the clang, and the linker the lld, of the PyPI package ziglang. Its version is pinned with
# the other development packages, so what it builds is the same on every system, bit for bit. ZIG is the command to call it.

ZIG         ?= python3 -m ziglang
ZIG_VERSION := 0.15.2
BUILD       ?= build

# zig keeps a cache even for single C files; nothing may be left outside the build directory
export ZIG_GLOBAL_CACHE_DIR := $(abspath $(BUILD))/cache
export ZIG_LOCAL_CACHE_DIR := $(ZIG_GLOBAL_CACHE_DIR)

# Nothing in the output depends on where or when it is built: no debug information, identification strings or paths.
ZIG_CFLAGS := -std=gnu11 -Os -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-unwind-tables \
              -fno-ident -fno-sanitize=all -g0 -Wall -Wextra -Werror

ifneq ($(MAKECMDGOALS),clean)
ifneq ($(shell $(ZIG) version 2>/dev/null),$(ZIG_VERSION))
$(error "$(ZIG)" is not zig $(ZIG_VERSION); install the locked development packages, or set ZIG)
endif
endif
