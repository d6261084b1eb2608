/* SPDX-License-Identifier: MIT */
/*
 * The console of the service-call logical processor (SCLP).
 *
 * A line goes out twice: as an ASCII (VT220) event for the integrated ASCII console, and as an EBCDIC line-mode event for the
 * operating-system-messages window. A machine without one of the two refuses that event, which does no harm.
 */
#include "console.h"

#include "cpu.h"
#include "memory.h"
#include "sclp.h"

#define EVENT_LINE_MODE 0x02
#define EVENT_ASCII 0x1a
#define SEND_LINE_MODE 0x40000000
#define SEND_ASCII 0x00000040

struct event_header {
    uint16_t length; /* of the event buffer, this header included */
    uint8_t type;
    uint8_t flags;
    uint16_t reserved;
} __attribute__((packed));

struct event_mask_sccb {
    struct sccb_header header;
    uint16_t reserved;
    uint16_t mask_length;
    uint32_t receive_mask;
    uint32_t send_mask;
    uint32_t sclp_send_mask;
    uint32_t sclp_receive_mask;
} __attribute__((packed));

struct ascii_sccb {
    struct sccb_header header;
    struct event_header event;
    char data[];
} __attribute__((packed));

struct line_mode_sccb {
    struct sccb_header header;
    struct event_header event;
    struct {
        uint16_t length;
        uint16_t type;
        uint32_t tag;
        uint32_t revision;
    } __attribute__((packed)) block; /* message data block */
    struct {
        uint16_t length;
        uint16_t type;
        uint8_t zero[52];
    } __attribute__((packed)) general; /* general object */
    struct {
        uint16_t length;
        uint16_t type;
        uint16_t flags;
        uint32_t zero;
        uint8_t ebcdic[];
    } __attribute__((packed)) line; /* message text object */
} __attribute__((packed));

_Static_assert(sizeof(struct event_mask_sccb) == 28, "write event mask SCCB");
_Static_assert(offsetof(struct ascii_sccb, data) == 14, "ASCII event SCCB");
_Static_assert(offsetof(struct line_mode_sccb, line) == 82, "line-mode event SCCB");

/* EBCDIC (code page 037) of the ASCII characters 0x20 to 0x7e */
static const uint8_t ebcdic[] = {
    0x40, 0x5a, 0x7f, 0x7b, 0x5b, 0x6c, 0x50, 0x7d, 0x4d, 0x5d, 0x5c, 0x4e, 0x6b, 0x60, 0x4b, 0x61,
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0x7a, 0x5e, 0x4c, 0x7e, 0x6e, 0x6f,
    0x7c, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6,
    0xd7, 0xd8, 0xd9, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xba, 0xe0, 0xbb, 0xb0, 0x6d,
    0x79, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xc0, 0x4f, 0xd0, 0xa1,
};

static uint8_t to_ebcdic(char c)
{
    return c < 0x20 || c > 0x7e ? ebcdic[0] : ebcdic[c - 0x20];
}

void console_open(void)
{
    struct event_mask_sccb *sccb = sclp_sccb(sizeof(*sccb));

    sccb->mask_length = sizeof(sccb->send_mask);
    sccb->send_mask = SEND_LINE_MODE | SEND_ASCII;
    sclp_call(SCLP_WRITE_EVENT_MASK, sccb);
}

static void write_ascii(const struct text *text)
{
    unsigned int size = text->length + 2;
    struct ascii_sccb *sccb = sclp_sccb(sizeof(*sccb) + size);

    sccb->event.length = sizeof(sccb->event) + size;
    sccb->event.type = EVENT_ASCII;
    memcpy(sccb->data, text->bytes, text->length);
    sccb->data[text->length] = '\r';
    sccb->data[text->length + 1] = '\n';
    sclp_call(SCLP_WRITE_EVENT_DATA, sccb);
}

static void write_line_mode(const struct text *text)
{
    struct line_mode_sccb *sccb = sclp_sccb(sizeof(*sccb) + text->length);

    sccb->line.length = sizeof(sccb->line) + text->length;
    sccb->line.type = 4;
    sccb->line.flags = 0x1000; /* end of line */
    for (unsigned int i = 0; i < text->length; i++)
        sccb->line.ebcdic[i] = to_ebcdic(text->bytes[i]);
    sccb->general.length = sizeof(sccb->general);
    sccb->general.type = 1;
    sccb->block.length = sizeof(sccb->block) + sizeof(sccb->general) + sccb->line.length;
    sccb->block.type = 1;
    sccb->block.tag = 0xd4c4c240; /* "MDB " */
    sccb->block.revision = 1;
    sccb->event.length = sizeof(sccb->event) + sccb->block.length;
    sccb->event.type = EVENT_LINE_MODE;
    sclp_call(SCLP_WRITE_EVENT_DATA, sccb);
}

void console_write(const struct text *text)
{
    write_ascii(text);
    write_line_mode(text);
}

void console_line(const char *line)
{
    struct text text = {0};

    text_string(&text, line);
    console_write(&text);
}
