/* SPDX-License-Identifier: MIT */
/*
 * The plaintext bootloader of a Secure Execution image: it asks the hypervisor to turn this guest into a protected one made
 * of the image's encrypted components. On success nothing of it is left; otherwise it says why and stops.
 */
#include "console.h"
#include "cpu.h"
#include "failure.h"
#include "layout.h"

#define FACILITY_UNPACK 161
#define FACILITY_DOUBLEWORDS 32

#define DIAG308_SET_PV 8      /* hand over the IPL parameter block */
#define DIAG308_UNPACK_PV 10  /* enter protected mode */
#define DIAG308_OK 1

#define IPIB_HEADER_ADDRESS 0x78
#define IPIB_HEADER_SIZE 0x80

/* The last 24 bytes of the file, filled in by the tool that builds the image. Offsets count from their first byte. */
struct arguments {
    uint64_t header_offset;
    uint64_t header_size;
    uint64_t ipib_offset;
};

static const volatile struct arguments arguments __attribute__((section(".arguments"), used));

static __attribute__((noreturn)) void stop(uint64_t code)
{
    disabled_wait(code);
}

/* Called with the stack empty and the lowcore as the interruption left it. */
__attribute__((noreturn)) void report_program_check(void)
{
    uint16_t code = *(volatile uint16_t *)real(LC_PROGRAM_CODE);
    uint64_t address = load64(LC_PROGRAM_OLD_PSW + 8);
    struct text text = {0};

    /* a second one, during this report, ends here too */
    set_new_psw(LC_PROGRAM_NEW_PSW, PSW_WAIT | PSW_64BIT, (void *)address);
    text_string(&text, "Program check 0x");
    text_hex(&text, code, 4);
    text_string(&text, " at 0x");
    text_hex(&text, address, 1);
    console_open();
    console_write(&text);
    load_psw(PSW_WAIT | PSW_64BIT, address);
}

__attribute__((noreturn)) void stage3a(void)
{
    uint64_t facilities[FACILITY_DOUBLEWORDS];
    uint64_t here = (uint64_t)&arguments;
    uint64_t ipib = here + arguments.ipib_offset;
    uint64_t response;
    struct text text = {0};

    store_facilities(facilities, FACILITY_DOUBLEWORDS);
    if (!has_facility(facilities, FACILITY_UNPACK)) {
        console_open();
        console_line("Secure unpack facility is not available");
        stop(STOP_NO_SECURE_EXECUTION);
    }
    if (!arguments.header_size || ipib % PAGE_SIZE) {
        console_open();
        console_line("This bootloader is not part of a complete image");
        stop(STOP_INTERNAL_ERROR);
    }
    store64(ipib + IPIB_HEADER_ADDRESS, here + arguments.header_offset);
    store64(ipib + IPIB_HEADER_SIZE, arguments.header_size);

    response = diag308(DIAG308_SET_PV, ipib);
    if (response != DIAG308_OK) {
        text_string(&text, "Protected boot setup has failed: 0x");
        text_hex(&text, response, 1);
        console_open();
        console_write(&text);
        stop(STOP_PROTECTED_BOOT_FAILED);
    }
    response = diag308(DIAG308_UNPACK_PV, 0);
    /* here only after a failure; the reset on the way there and back has closed the console, had it been open */
    console_open();
    report_failure(response);
    stop(STOP_PROTECTED_BOOT_FAILED);
}
