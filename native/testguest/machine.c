/* SPDX-License-Identifier: MIT */
/* The words about the machine: facilities, DIAGNOSE 308, a second CPU, address translation, time, and the ways to end. */
#include "console.h"
#include "guest.h"
#include "memory.h"

#define DIAG308_LOAD_CLEAR 3
#define STOP_PANIC 0xdead
#define TOD_MICROSECOND 4096ul
#define SECOND_CPU_SECONDS 10

unsigned int sigp(unsigned int cpu, unsigned int order, uint64_t parameter)
{
    register uint64_t status asm("2") = 0;
    register uint64_t in asm("3") = parameter;
    unsigned int cc;

    asm volatile("sigp %1,%3,0(%4)\n"
                 "ipm %0\n"
                 "srl %0,28"
                 : "=d"(cc), "+d"(status)
                 : "d"(in), "d"((uint64_t)cpu), "a"((uint64_t)order)
                 : "cc", "memory");
    return cc;
}

unsigned int cpu_address(void)
{
    uint16_t address;

    asm volatile("stap %0" : "=Q"(address));
    return address;
}

static uint64_t clock(void)
{
    uint64_t now;

    asm volatile("stck %0" : "=Q"(now) : : "cc");
    return now;
}

uint64_t milliseconds(void)
{
    return clock() / (1000 * TOD_MICROSECOND);
}

void nap(unsigned int duration)
{
    uint64_t until = clock() + duration * 1000 * TOD_MICROSECOND;
    uint64_t never = ~0ul;

    asm volatile("sckc %0" : : "Q"(until));
    wait_external(SUBCLASS_CLOCK_COMPARATOR);
    asm volatile("sckc %0" : : "Q"(never));
}

/* The machine is off once its last CPU has stopped. */
__attribute__((noreturn)) void power_off(void)
{
    for (;;)
        sigp(cpu_address(), SIGP_STOP, 0);
}

static void word_hello(const char *value)
{
    (void)value;
    say("hello");
}

static void word_say(const char *value)
{
    say(value);
}

static void word_facility(const char *value)
{
    uint64_t list[32];

    store_facilities(list, 32);
    if (!*value)
        value = "158,161";
    do {
        struct text text = line_start("facility ");
        unsigned int bit = parse_decimal(&value);

        text_decimal(&text, bit);
        text_string(&text, bit < 2048 && has_facility(list, bit) ? " yes" : " no");
        console_write(&text);
    } while (parse_comma(&value));
}

/* diag=SUBCODE[,ADDRESS] */
static void word_diag(const char *value)
{
    struct text text = line_start("diag 308 subcode ");
    uint64_t subcode = parse_hex(&value);
    uint64_t address = parse_comma(&value) ? parse_address(&value) : storage.block;
    uint64_t response = 0;

    text_hex(&text, subcode, 1);
    if (diag308_try(subcode, address, &response)) {
        console_open(); /* the reset closed it */
        text_string(&text, " came back through the PSW at 0");
    } else if (load64(LC_TRIED_CODE)) {
        put_hex(&text, " program=", load64(LC_TRIED_CODE), 4);
    } else {
        put_hex(&text, " response=", response, 4);
    }
    console_write(&text);
}

/* What the second CPU reports to the first */
static volatile struct {
    uint64_t prefix;
    struct outcome outcome;
    uint64_t done;
} second;

#define SECOND_UVCB 0x1800 /* within the prefix area on purpose: a real address that is not the absolute one */
#define QUERY_LENGTH 0x120

__attribute__((noreturn)) void second_main(void)
{
    struct uvcb *uvcb = real(SECOND_UVCB);
    uint32_t prefix;

    asm volatile("stpx %0" : "=Q"(prefix));
    second.prefix = prefix;
    memset(uvcb, 0, QUERY_LENGTH);
    uvcb->length = QUERY_LENGTH;
    uvcb->command = 0x0001;
    struct outcome outcome = uvc(uvcb);

    second.outcome.cc = outcome.cc;
    second.outcome.program = outcome.program;
    asm volatile("bcr 15,0" : : : "memory"); /* serialize */
    second.done = 1;
    power_off();
}

/* Start CPU 1 with a prefix of its own and let it query the ultravisor. */
static void word_cpu(const char *value)
{
    struct text text = line_start("cpu 1");
    uint64_t limit = milliseconds() + SECOND_CPU_SECONDS * 1000;

    (void)value;
    memset(real(SECOND_PREFIX), 0, 2 * PAGE_SIZE);
    set_new_psw(SECOND_PREFIX + LC_RESTART_NEW_PSW, PSW_64BIT, second_entry);
    second.done = 0;
    if (sigp(1, SIGP_SET_PREFIX, SECOND_PREFIX) || sigp(1, SIGP_RESTART, 0)) {
        text_string(&text, " did not start");
        console_write(&text);
        return;
    }
    while (!second.done && milliseconds() < limit)
        ;
    while (second.done && sigp(1, SIGP_SENSE, 0) != 1 && milliseconds() < limit) /* status stored: it has stopped */
        ;
    if (!second.done) {
        text_string(&text, " did not answer");
    } else {
        struct outcome outcome = {second.outcome.cc, second.outcome.program};

        put_hex(&text, " prefix=0x", second.prefix, 1);
        text_string(&text, " query");
        put_outcome(&text, outcome, real(SECOND_PREFIX + SECOND_UVCB));
    }
    console_write(&text);
}

static void word_nap(const char *value)
{
    nap(parse_decimal(&value));
    say("nap done");
}

static void word_reboot(const char *value)
{
    uint64_t response;

    (void)value;
    diag308_try(DIAG308_LOAD_CLEAR, 0, &response);
    say("reboot failed");
}

static void word_poweroff(const char *value)
{
    (void)value;
    power_off();
}

static void word_panic(const char *value)
{
    disabled_wait(*value ? parse_hex(&value) : STOP_PANIC);
}

static void word_loop(const char *value)
{
    (void)value;
    say("looping");
    for (;;)
        asm volatile("");
}

static void word_wait(const char *value)
{
    (void)value;
    say("waiting");
    for (;;)
        wait_external(0); /* open for external interruptions, but for no kind of them */
}

const struct word machine_words[] = {
    {"hello", word_hello}, {"say", word_say},           {"facility", word_facility}, {"diag", word_diag},
    {"dat", word_dat},     {"cpu", word_cpu},           {"nap", word_nap},           {"reboot", word_reboot},
    {"panic", word_panic}, {"poweroff", word_poweroff}, {"loop", word_loop},         {"wait", word_wait},
    {"", NULL},
};
