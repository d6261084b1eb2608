/* SPDX-License-Identifier: MIT */
/* The words that call the ultravisor. */
#include "console.h"
#include "guest.h"
#include "memory.h"

#define UVC_QUERY 0x0001
#define UVC_SHARE 0x1000
#define UVC_UNSHARE 0x1001
#define QUERY_LENGTH 0x120
#define SHARE_LENGTH 0x30
#define LOW_ADDRESS_PROTECTION 0x10000000ul /* bit 35 of control register 0: no stores to 0-511 and 4096-4607 */

/*
 * Try `code`. A program check ends it at label 1 with its code in LC_TRIED_CODE. R1 of every UVC is register 0, holding 0.
 * The lowcore words are addressed without a base: they are each CPU's own.
 */
#define TRY(outcome, code, ...)                                        \
    do {                                                               \
        register uint64_t zero asm("0") = 0;                           \
        uint64_t cc, scratch;                                          \
        asm volatile("stg %[zero],%[tried]\n"                          \
                     "larl %[scratch],1f\n"                            \
                     "stg %[scratch],%[resume]\n" code "\n"            \
                     "1: ipm %[cc]\n"                                  \
                     "srl %[cc],28\n"                                  \
                     "stg %[zero],%[resume]"                           \
                     : [cc] "=&d"(cc), [scratch] "=&a"(scratch)        \
                     : [zero] "d"(zero), [tried] "i"(LC_TRIED_CODE), [resume] "i"(LC_RESUME), __VA_ARGS__ \
                     : "cc", "memory");                                \
        (outcome).cc = (uint32_t)cc;                                   \
        (outcome).program = load64(LC_TRIED_CODE);                     \
    } while (0)

#define UVC_INSTRUCTION(m3, m4) ".insn rrf,0xb9a40000,%[zero],%[uvcb]," m3 "," m4

struct outcome uvc(void *uvcb)
{
    struct outcome outcome;

    TRY(outcome, UVC_INSTRUCTION("0", "0"), [uvcb] "a"(uvcb));
    return outcome;
}

/* In problem state; a SUPERVISOR CALL leads back if the UVC is executed. */
static struct outcome uvc_in_problem_state(void *uvcb)
{
    struct outcome outcome;
    struct psw problem __attribute__((aligned(8)));

    TRY(outcome,
        "epsw %[scratch],%[cc]\n"
        "sllg %[scratch],%[scratch],32\n"
        "llgfr %[cc],%[cc]\n"
        "ogr %[scratch],%[cc]\n"
        "stg %[scratch],%[svc]\n"
        "larl %[cc],1f\n"
        "stg %[cc],%[svc]+8\n"
        "oihh %[scratch],1\n"
        "stg %[scratch],0(%[psw])\n"
        "larl %[scratch],2f\n"
        "stg %[scratch],8(%[psw])\n"
        "lpswe 0(%[psw])\n"
        "2: " UVC_INSTRUCTION("0", "0") "\n"
        "svc 0",
        [uvcb] "a"(uvcb), [psw] "a"(&problem), [svc] "i"(LC_SVC_NEW_PSW));
    return outcome;
}

void put_outcome(struct text *text, struct outcome outcome, const struct uvcb *uvcb)
{
    if (outcome.program) {
        put_hex(text, " program=", outcome.program, 4);
        return;
    }
    put_decimal(text, " cc=", outcome.cc);
    put_hex(text, " rc=", uvcb->rc, 4);
    put_hex(text, " rrc=", uvcb->rrc, 4);
}

static void report(const char *what, struct outcome outcome, const struct uvcb *uvcb)
{
    struct text text = line_start(what);

    put_outcome(&text, outcome, uvcb);
    console_write(&text);
}

static struct uvcb *prepare(uint64_t address, unsigned int command, unsigned int length)
{
    struct uvcb *uvcb = real(address);

    memset(uvcb, 0, length < sizeof(*uvcb) ? sizeof(*uvcb) : length);
    uvcb->length = length;
    uvcb->command = command;
    return uvcb;
}

/* query[=LENGTH] */
static void word_query(const char *value)
{
    unsigned int length = *value ? parse_hex(&value) : QUERY_LENGTH;
    struct uvcb *uvcb = prepare(storage.uvcb, UVC_QUERY, length);
    struct outcome outcome = uvc(uvcb);
    struct text text = line_start("query");
    const char *bytes = (const char *)uvcb;

    put_outcome(&text, outcome, uvcb);
    if (!outcome.program && uvcb->rc != 5) {
        put_hex(&text, " calls=", *(const uint64_t *)(bytes + 0x10), 16);
        put_decimal(&text, " max_guests=", *(const uint32_t *)(bytes + 0x7c));
        put_hex(&text, " max_address=", *(const uint64_t *)(bytes + 0x80), 1);
        put_decimal(&text, " max_cpu_id=", *(const uint16_t *)(bytes + 0x9e));
    }
    console_write(&text);
}

static struct outcome set_sharing(unsigned int command, uint64_t page, struct uvcb **uvcb)
{
    *uvcb = prepare(storage.uvcb, command, SHARE_LENGTH);
    ((uint64_t *)*uvcb)[4] = page; /* offset 0x20: guest absolute address */
    return uvc(*uvcb);
}

/* Every page of the pool has its own content: lines of 32 bytes that name the page. */
static const char *page_line(uint64_t index)
{
    static char bytes[32];
    struct text text = {0};

    text_string(&text, "zseal pool page ");
    text_hex(&text, index, 8);
    text_string(&text, " shared ");
    memcpy(bytes, text.bytes, sizeof(bytes));
    return bytes;
}

static void fill_page(uint64_t page, uint64_t index)
{
    const char *line = page_line(index);

    for (unsigned int offset = 0; offset < PAGE_SIZE; offset += 32)
        memcpy(real(page + offset), line, 32);
}

static int is_filled(uint64_t page, uint64_t index)
{
    const uint64_t *line = (const uint64_t *)page_line(index);

    for (unsigned int offset = 0; offset < PAGE_SIZE; offset += 8)
        if (load64(page + offset) != line[offset / 8 % 4])
            return 0;
    return 1;
}

/* Share or unshare the first COUNT pages of the pool; stop at the first that fails. */
static void change_pool(const char *what, unsigned int command, const char *value)
{
    struct text text = line_start(what);
    uint64_t wanted = parse_decimal(&value);
    uint64_t done = 0, intact = 0;
    struct outcome outcome = {0};
    struct uvcb *uvcb = real(storage.uvcb);

    for (; done < wanted; done++) {
        uint64_t page = storage.pool + done * PAGE_SIZE;

        if (command == UVC_SHARE)
            fill_page(page, done);
        outcome = set_sharing(command, page, &uvcb);
        if (outcome.program || outcome.cc)
            break;
        intact += is_filled(page, done);
    }
    put_decimal(&text, " pages=", done);
    put_decimal(&text, " of ", wanted);
    put_hex(&text, " address=0x", storage.pool, 1);
    put_outcome(&text, outcome, uvcb);
    put_decimal(&text, " intact=", intact);
    console_write(&text);
}

static void word_share(const char *value)
{
    change_pool("share", UVC_SHARE, value);
}

static void word_unshare(const char *value)
{
    change_pool("unshare", UVC_UNSHARE, value);
}

static void change_one(const char *what, unsigned int command, const char *value)
{
    struct text text = line_start(what);
    uint64_t page = parse_address(&value);
    struct uvcb *uvcb;
    struct outcome outcome = set_sharing(command, page, &uvcb);

    put_hex(&text, " 0x", page, 1);
    put_outcome(&text, outcome, uvcb);
    console_write(&text);
}

static void word_share_at(const char *value)
{
    change_one("share", UVC_SHARE, value);
}

static void word_unshare_at(const char *value)
{
    change_one("unshare", UVC_UNSHARE, value);
}

/* uvc=COMMAND,LENGTH[,OFFSET:DOUBLEWORD]... */
static void word_uvc(const char *value)
{
    struct text text = line_start("uvc ");
    unsigned int command = parse_hex(&value);
    unsigned int length = parse_comma(&value) ? parse_hex(&value) : sizeof(struct uvcb);
    struct uvcb *uvcb = prepare(storage.uvcb, command, length);

    while (parse_comma(&value)) {
        uint64_t offset = parse_hex(&value);

        if (*value == ':')
            value++;
        store64(storage.uvcb + offset, parse_address(&value));
    }
    struct outcome outcome = uvc(uvcb);

    text_hex(&text, command, 4);
    put_outcome(&text, outcome, uvcb);
    console_write(&text);
}

/* problem[=COMMAND] */
static void word_problem(const char *value)
{
    unsigned int command = *value ? parse_hex(&value) : UVC_QUERY;
    struct uvcb *uvcb = prepare(storage.uvcb, command, QUERY_LENGTH);

    report("problem state", uvc_in_problem_state(uvcb), uvcb);
}

static void word_mfields(const char *value)
{
    struct uvcb *uvcb = prepare(storage.uvcb, UVC_QUERY, QUERY_LENGTH);
    struct outcome outcome;

    (void)value;
    TRY(outcome, UVC_INSTRUCTION("%%r1", "0"), [uvcb] "a"(uvcb));
    report("M3 not zero", outcome, uvcb);
    TRY(outcome, UVC_INSTRUCTION("0", "1"), [uvcb] "a"(uvcb));
    report("M4 not zero", outcome, uvcb);
}

static void word_misaligned(const char *value)
{
    (void)value;
    for (unsigned int offset = 1; offset < 8; offset <<= 1) {
        struct uvcb *uvcb = real(storage.uvcb + offset);

        memset(real(storage.uvcb), 0, QUERY_LENGTH + 8);
        memcpy(uvcb, &(struct uvcb){QUERY_LENGTH, UVC_QUERY, 0, 0}, sizeof(*uvcb));
        report("misaligned", uvc(uvcb), uvcb);
    }
}

/* The control block's header is the last doubleword of storage, then one that lies after it altogether. */
static void word_crossing(const char *value)
{
    struct uvcb *uvcb = prepare(storage.end - sizeof(*uvcb), UVC_QUERY, sizeof(*uvcb));

    (void)value;
    uvcb->length = QUERY_LENGTH;
    report("crossing the end of storage", uvc(uvcb), uvcb);
    report("beyond the end of storage", uvc(real(storage.end)), real(storage.uvcb));
}

static void word_readonly(const char *value)
{
    static struct uvcb copy;
    struct uvcb *uvcb = prepare(0x1000, UVC_QUERY, QUERY_LENGTH);
    uint64_t saved, protected;
    struct outcome outcome;

    (void)value;
    asm volatile("stctg %%c0,%%c0,%0" : "=Q"(saved));
    protected = saved | LOW_ADDRESS_PROTECTION;
    asm volatile("lctlg %%c0,%%c0,%0" : : "Q"(protected));
    /* the lowcore words that uvc() keeps are not in the protected range */
    outcome = uvc(uvcb);
    asm volatile("lctlg %%c0,%%c0,%0" : : "Q"(saved));
    copy = *uvcb;
    report("read-only", outcome, &copy);
}

const struct word ultravisor_words[] = {
    {"query", word_query},         {"share", word_share},           {"unshare", word_unshare},
    {"share-at", word_share_at},   {"unshare-at", word_unshare_at}, {"uvc", word_uvc},
    {"problem", word_problem},     {"mfields", word_mfields},       {"misaligned", word_misaligned},
    {"crossing", word_crossing},   {"readonly", word_readonly},     {"", NULL},
};
