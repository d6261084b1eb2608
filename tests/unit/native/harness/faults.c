// SPDX-License-Identifier: MIT
/* What the sanitizers have to find. */

#include <stdint.h>

int array[4] = {1, 2, 3, 4};

int read_past(const uint8_t *buffer, unsigned int size)
{
	return buffer[size];
}

int read_past_array(unsigned int index)
{
	return array[index];
}

int shift(int value, int count)
{
	return value << count;
}

int add(int left, int right)
{
	return left + right;
}
