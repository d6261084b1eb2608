/* SPDX-License-Identifier: MIT */
/*
 * A bare-metal guest that does what the words of its command line say, one after the other, and reports each in a line on
 * the console. After the last word it powers off.
 */
#include "console.h"
#include "guest.h"
#include "layout.h"
#include "memory.h"

static const struct word *const vocabularies[] = {machine_words, storage_words, ultravisor_words};

__attribute__((noreturn)) void unexpected_program_check(void)
{
    struct text text = line_start("unexpected program check");

    put_hex(&text, " 0x", load64(LC_TRIED_CODE), 4);
    put_hex(&text, " at 0x", load64(LC_PROGRAM_OLD_PSW + 8), 1);
    console_write(&text);
    disabled_wait(STOP_PROGRAM_CHECK);
}

static word_handler *find(const char *word, unsigned int length)
{
    for (unsigned int v = 0; v < sizeof(vocabularies) / sizeof(*vocabularies); v++)
        for (const struct word *entry = vocabularies[v]; entry->run; entry++)
            if (begins_with(word, entry->name) && entry->name[length - 1] && !entry->name[length])
                return entry->run;
    return NULL;
}

/* Run the word at `cursor` and return where it ends. The word's end is marked with a NUL. */
static char *run_word(char *cursor)
{
    char *end = cursor;
    unsigned int length = 0;
    word_handler *handler;

    while (*end && *end != ' ')
        end++;
    if (*end)
        *end++ = '\0';
    while (cursor[length] && cursor[length] != '=')
        length++;
    handler = length && length < sizeof(((struct word *)0)->name) ? find(cursor, length) : NULL;
    if (!handler) {
        struct text text = line_start("unknown word ");

        text_string(&text, cursor);
        console_write(&text);
        disabled_wait(STOP_UNKNOWN_WORD);
    }
    handler(cursor[length] ? cursor + length + 1 : cursor + length);
    return end;
}

__attribute__((noreturn)) void main(void)
{
    static char words[GUEST_COMMAND_LINE_CAPACITY + 1]; /* the original stays whole */
    char *cursor = words;

    store64(LC_RESUME, 0);
    console_open();
    storage_find();
    memcpy(words, real(KERNEL_COMMAND_LINE), GUEST_COMMAND_LINE_CAPACITY);
    for (;;) {
        while (*cursor == ' ' || *cursor == '\n')
            cursor++;
        if (!*cursor)
            power_off();
        cursor = run_word(cursor);
    }
}
