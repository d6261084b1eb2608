/* SPDX-License-Identifier: MIT */
#include "failure.h"

#include "console.h"

#define ANY 0xffff
#define NO_CONFIGURATION 0x0902

/*
 * Ultravisor return codes (rc) and reason codes (rrc) that a user can act on. The first match counts.
 * Character arrays, not pointers: the table needs no relocation.
 */
static const struct cause {
    uint16_t rc;
    uint16_t rrc;
    char text[TEXT_SIZE];
} causes[] = {
    {0x0102, 0x001a, "Image check failed: a component is not at the address it was built for (ALD)"},
    {0x0102, 0x001b, "Image check failed: the content of a component was changed (PLD)"},
    {0x0102, 0x001c, "Image check failed: the tweak of a component was changed (TLD)"},
    {0x0102, 0x001d, "Image check failed: the number of encrypted pages is not the header's"},
    {0x0102, ANY, "Image check failed: the image is not the one its header describes"},
    {0x0104, 0x0001, "The version of the SE header is not supported by this machine"},
    {0x0106, 0x0030, "The image needs a plaintext control flag this machine does not support"},
    {0x0108, 0x0005, "No key slot of the image matches the host key of this machine"},
    {0x0108, 0x000b, "The public customer key in the SE header is not valid"},
    {0x0108, 0x0034, "A key slot does not match the backup (secondary) host key of this machine"},
    {0x0108, ANY, "The image cannot be opened: was it encrypted for this host?"},
    {0x0109, 0x0000, "The image needs a secret control flag this machine does not support"},
    {0x010a, 0x0031, "The SE header is damaged: wrong header size"},
    {0x010a, 0x0039, "The SE header is damaged: wrong size of its encrypted area"},
    {0x010a, 0x0040, "The SE header is damaged: it has no key slot for any host"},
    {0x010a, ANY, "The SE header is damaged"},
};

static const char *command_name(unsigned int command)
{
    if (command == 2)
        return "KVM_PV_SET_SEC_PARMS";
    if (command == 3)
        return "KVM_PV_UNPACK";
    if (command == 4)
        return "KVM_PV_VERIFY";
    return "KVM_PV_ENABLE";
}

static void report_cause(unsigned int rc, unsigned int rrc)
{
    for (unsigned int i = 0; i < sizeof(causes) / sizeof(*causes); i++)
        if (causes[i].rc == rc && (causes[i].rrc == rrc || causes[i].rrc == ANY)) {
            console_line(causes[i].text);
            return;
        }
}

void report_failure(uint64_t response)
{
    /* hypervisors that know more put it above their own 16-bit response */
    unsigned int command = response >> 48;
    unsigned int rrc = response >> 32 & 0xffff;
    unsigned int rc = response >> 16 & 0xffff;
    unsigned int diag_rc = response & 0xffff;
    struct text text = {0};

    if (diag_rc == NO_CONFIGURATION)
        console_line("The hypervisor has no configuration for a protected guest");
    if (response >> 16 == 0) {
        text_string(&text, "Protected boot has failed: 0x");
        text_hex(&text, diag_rc, 1);
        console_write(&text);
        return;
    }
    report_cause(rc, rrc);
    text_string(&text, "Protected boot failed: 0x");
    text_hex(&text, diag_rc, 1);
    text_string(&text, ", ");
    text_string(&text, command_name(command));
    text_string(&text, " - RC: 0x");
    text_hex(&text, rc, 1);
    text_string(&text, ", RRC:0x");
    text_hex(&text, rrc, 1);
    console_write(&text);
}
