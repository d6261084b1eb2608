/* SPDX-License-Identifier: MIT */
/* Service calls: one command at a time, with the SCCB (service-call control block) in a page of its own. */
#ifndef SCLP_H
#define SCLP_H

#include <stdint.h>

#define SCLP_READ_SCP_INFO 0x00020001
#define SCLP_WRITE_EVENT_DATA 0x00760005
#define SCLP_WRITE_EVENT_MASK 0x00780005

#define SCLP_OK 0x0020
#define SCLP_READ_OK 0x0010

struct sccb_header {
    uint16_t length;
    uint8_t function;
    uint8_t control[3];
    uint16_t response;
} __attribute__((packed));

/* Zero the SCCB page and return it as an SCCB of `length` bytes (header included). */
void *sclp_sccb(unsigned int length);

/* Run `command` to its end. Returns the response code, or 0 if there is no SCLP. */
unsigned int sclp_call(uint32_t command, void *sccb);

#endif
