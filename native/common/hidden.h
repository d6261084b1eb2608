/* SPDX-License-Identifier: MIT */
/* Included into every source: all symbols, declared ones too, are the program's own. So no global offset table is needed. */
#pragma GCC visibility push(hidden)
