/* test_dir.h - a test's directory: made, filled, and removed with all that is in it. */
#pragma once

#include "base/alloc.h"
#include "base/buf.h"

#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** A fresh directory, to be removed with dir_remove() and freed. */
static inline char *dir_make(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = xasprintf("%s/cirrus-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
	if (mkdtemp(dir) == NULL)
		abort();
	return dir;
}

static inline int dir_remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

static inline void dir_remove(const char *dir)
{
	if (nftw(dir, dir_remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
		perror(dir);
}

/** Writes the text to the file of that name in the directory. */
static inline void dir_write(const char *dir, const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "we");
	if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) {
		perror(path);
		abort();
	}
	free(path);
}

/** Appends the text with the directory in place of each DIR. */
static inline void dir_expand(const char *dir, const char *text, struct buf *out)
{
	for (; *text != '\0'; text++) {
		if (strncmp(text, "DIR", 3) == 0)
			buf_add_z(out, dir), text += 2;
		else
			buf_add_c(out, *text);
	}
}

/** JSON from the text, with the directory for each DIR and quotes for apostrophes. */
static inline json_t *dir_json(const char *dir, const char *text)
{
	struct buf b = BUF_INIT;
	dir_expand(dir, text, &b);
	for (size_t i = 0; i < b.n; i++)
		b.p[i] = b.p[i] == '\'' ? '"' : b.p[i];
	json_error_t e;
	json_t *v = json_loadb(b.p, b.n, 0, &e);
	if (v == NULL) {
		fprintf(stderr, "%s: %s\n", b.p, e.text);
		abort();
	}
	buf_fini(&b);
	return v;
}
