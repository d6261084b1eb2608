/* SPDX-License-Identifier: MIT */
#include "sclp.h"

#include "cpu.h"
#include "layout.h"
#include "memory.h"

#define CC_STARTED 0
#define CC_BUSY 2

void *sclp_sccb(unsigned int length)
{
    struct sccb_header *sccb = real(SCCB_ADDRESS);

    memset(sccb, 0, PAGE_SIZE);
    sccb->length = length;
    return sccb;
}

static int service_call(uint32_t command, void *sccb)
{
    int cc;

    asm volatile(".insn rre,0xb2200000,%1,%2\n"
                 "ipm %0\n"
                 "srl %0,28"
                 : "=d"(cc)
                 : "d"((uint64_t)command), "a"(sccb)
                 : "cc", "memory");
    return cc;
}

unsigned int sclp_call(uint32_t command, void *sccb)
{
    volatile struct sccb_header *header = sccb;
    int cc;

    while ((cc = service_call(command, sccb)) == CC_BUSY)
        wait_external(SUBCLASS_SERVICE_SIGNAL); /* of whatever keeps the SCLP busy */
    if (cc != CC_STARTED)
        return 0;
    do /* a signal may also just announce that events are pending */
        wait_external(SUBCLASS_SERVICE_SIGNAL);
    while (header->response == 0);
    return header->response;
}
