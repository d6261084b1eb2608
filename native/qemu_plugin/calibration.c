// SPDX-License-Identifier: MIT
/* The call sites of QEMU's lock: each is a pointer to the name of a source file, and a line. */

#include "plugin.h"

static struct place {
	const char *file;
	int line;
} places[EVENTS];

static bool same(struct place left, struct place right)
{
	return left.file == right.file && left.line == right.line;
}

void calibration_learn(enum event event, const char *file, int line)
{
	places[event] = (struct place){file, line};
}

/*
 * An event for which no lock was taken has got the place of what came next, which others then have as well: that of the
 * exception, or that of a step's end, which is all there is to learn from a NOTHING.
 */
bool calibration_is_complete(void)
{
	static const enum event known[] = {NOTIFICATION, CALL, START, RESET, NOTHING};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!places[known[i]].file)
			return false;
		for (size_t j = 0; j < i; j++)
			if (same(places[known[i]], places[known[j]]))
				return false;
	}
	return true;
}

enum event calibration_find(const char *file, int line)
{
	static const enum event seen[] = {CALL, NOTIFICATION, START, RESET};
	struct place place = {file, line};

	for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
		if (same(places[seen[i]], place))
			return seen[i];
	return NOTHING;
}
