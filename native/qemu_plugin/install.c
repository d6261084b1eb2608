// SPDX-License-Identifier: MIT
/*
 *     -plugin FILE,socket=N,entry=ADDRESS[,notifications=off][,lock=off][,queues=N,storage=N]
 *
 * Numbers are decimal; each N is an inherited descriptor: a stream socket, what queues.h describes, the guest's storage.
 */

#include "plugin.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version;

static bool equal(const char *left, const char *right)
{
	while (*left && *left == *right)
		left++, right++;
	return *left == *right;
}

/* QEMU looks at the version before it calls anything but this. */
__attribute__((constructor)) static void choose_version(void)
{
	const char *told = getenv("ZSEAL_PLUGIN_INTERFACE");

	if (told && equal(told, "7"))
		qemu_plugin_version = 7;
	else if (qemu_plugin_n_vcpus)
		qemu_plugin_version = 1;
	else if (qemu_plugin_translate_vaddr)
		qemu_plugin_version = 5;
	else if (qemu_plugin_read_memory_vaddr)
		qemu_plugin_version = 4;
	else
		qemu_plugin_version = 2;
}

struct options {
	int socket;
	int entry;
	int queues;
	int storage;
	bool notifications;
	bool lock;
};

static int number_after(const char *text, const char *name)
{
	int number = 0;

	while (*name)
		if (*text++ != *name++)
			return -1;
	if (!*text)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || number > 1000000)
			return -1;
		number = number * 10 + (*text - '0');
	}
	return number;
}

static bool take_option(struct options *options, const char *text)
{
	struct {
		const char *name;
		int *value;
	} const numbers[] = {
		{"socket=", &options->socket},
		{"entry=", &options->entry},
		{"queues=", &options->queues},
		{"storage=", &options->storage},
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		int number = number_after(text, numbers[i].name);

		if (number >= 0) {
			*numbers[i].value = number;
			return true;
		}
	}
	if (equal(text, "notifications=off"))
		options->notifications = false;
	else if (equal(text, "lock=off"))
		options->lock = false;
	else
		return false;
	return true;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	struct options options = {-1, -1, -1, -1, true, true};

	for (int i = 0; i < argc; i++)
		if (!take_option(&options, argv[i]))
			return -1;
	if (options.socket < 0 || options.entry < 0)
		return -1;
	if (options.notifications && !devices_watch(options.queues, options.storage))
		return -1;
	if (options.lock)
		lock_watch(info);
	if (!channel_open(options.socket))
		return -1;
	if (info->version.cur < USER_DATA_FROM)
		halt_watch(id); /* it knows the older form of the callback only */
	translation_start(id, info, (uintptr_t)options.entry);
	return 0;
}
