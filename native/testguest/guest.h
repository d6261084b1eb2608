/* SPDX-License-Identifier: MIT */
/* What the parts of the test guest share. docs/bootloaders.md lists the words of its command line. */
#ifndef GUEST_H
#define GUEST_H

#include "cpu.h"
#include "lowcore.h"
#include "text.h"

#define STOP_UNKNOWN_WORD 0xbad
#define STOP_PROGRAM_CHECK 0xbadc

/* The storage the guest works with: from the first MiB boundary after kernel and ramdisk. */
struct storage {
    uint64_t end;          /* of main storage */
    uint64_t ramdisk;      /* 0: none */
    uint64_t ramdisk_size;
    uint64_t marker;       /* one page */
    uint64_t block;        /* one page, for DIAGNOSE 308 */
    uint64_t uvcb;         /* one page */
    uint64_t tables;       /* DAT tables, up to the pool */
    uint64_t pool;         /* up to the end */
};

extern struct storage storage;

void storage_find(void);

/* Words of the command line: the handler gets what follows '=', or an empty string. */
typedef void word_handler(const char *value);

struct word {
    char name[16];
    word_handler *run;
};

extern const struct word ultravisor_words[], machine_words[], storage_words[];

/* parse.c. Numbers are hexadecimal; an address may start with pool, ramdisk, marker, block, uvcb or end, and +/- a number */
uint64_t parse_hex(const char **cursor);
uint64_t parse_decimal(const char **cursor);
uint64_t parse_address(const char **cursor);
int parse_comma(const char **cursor); /* true, and past it, if there is one */
int begins_with(const char *string, const char *start);

/* output.c: every line starts with the guest's name */
struct text line_start(const char *string);
void say(const char *string);
void put_hex(struct text *text, const char *label, uint64_t value, unsigned int digits);
void put_decimal(struct text *text, const char *label, uint64_t value);
void put_bytes(struct text *text, const char *bytes, uint64_t size);

/* What became of an instruction: its condition code, or a program interruption's code. */
struct outcome {
    unsigned int cc;
    unsigned int program; /* 0: it was executed */
};

/* Ultravisor-call control block header; the fields after it are the command's. */
struct uvcb {
    uint16_t length;
    uint16_t command;
    uint16_t rc;
    uint16_t rrc;
};

/* ultravisor.c */
struct outcome uvc(void *uvcb);
void put_outcome(struct text *text, struct outcome outcome, const struct uvcb *uvcb);

/* machine.c */
void nap(unsigned int milliseconds);
uint64_t milliseconds(void);
unsigned int sigp(unsigned int cpu, unsigned int order, uint64_t parameter);
unsigned int cpu_address(void);
__attribute__((noreturn)) void power_off(void);

#define SIGP_SENSE 0x01
#define SIGP_STOP 0x05
#define SIGP_RESTART 0x06
#define SIGP_SET_PREFIX 0x0d

/* translation.c */
void word_dat(const char *value);

/* start.S */
int diag308_try(uint64_t subcode, uint64_t address, uint64_t *response);
void second_entry(void);

#endif
