/* zstd_read.h - reading log segments in tests, whole or cut short, with the streaming decoder. */
#pragma once

#include "base/alloc.h"
#include "base/buf.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

/* Appends what can be decoded. True when the file is one complete frame and nothing else. */
static inline bool zstd_read(const char *path, struct buf *out)
{
	struct buf in = BUF_INIT;
	char block[4096];
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return false;
	for (size_t n; (n = fread(block, 1, sizeof(block), f)) > 0;)
		buf_add(&in, block, n);
	fclose(f);
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer zin = {in.p, in.n, 0};
	size_t left = 1;
	while (zin.pos < zin.size && left != 0) {
		ZSTD_outBuffer zout = {block, sizeof(block), 0};
		left = ZSTD_decompressStream(z, &zout, &zin);
		if (ZSTD_isError(left))
			break;
		buf_add(out, block, zout.pos);
		while (!ZSTD_isError(left) &&
		       zout.pos == zout.size) { /* the rest of a block that was decoded already */
			zout = (ZSTD_outBuffer){block, sizeof(block), 0};
			left = ZSTD_decompressStream(z, &zout, &zin);
			if (!ZSTD_isError(left))
				buf_add(out, block, zout.pos);
		}
	}
	bool is_whole = left == 0 && zin.pos == zin.size;
	ZSTD_freeDStream(z);
	buf_fini(&in);
	return is_whole;
}

/* The files of a directory whose names end in suffix, sorted, to be freed one by one. Returns how many. */
static inline size_t dir_list(const char *dir, const char *suffix, char **path, size_t max)
{
	struct dirent **e;
	size_t n = 0;
	int found = scandir(dir, &e, NULL, alphasort);
	for (int i = 0; i < found; i++) {
		if (e[i]->d_name[0] != '.' && e[i]->d_type == DT_REG && n < max &&
		    str_ends(str_of(e[i]->d_name), str_of(suffix)))
			path[n++] = xasprintf("%s/%s", dir, e[i]->d_name);
		free(e[i]);
	}
	if (found >= 0)
		free(e);
	return n;
}

/* Appends what can be decoded of every segment, in order of
 * their names; returns how many segments are whole. */
static inline size_t dir_read(const char *dir, const char *suffix, struct buf *out)
{
	char **path = xcalloc(4096, sizeof(*path));
	size_t n = dir_list(dir, suffix, path, 4096), n_whole = 0;
	for (size_t i = 0; i < n; i++) {
		n_whole += zstd_read(path[i], out);
		free(path[i]);
	}
	free(path);
	return n_whole;
}

static inline mode_t path_mode(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}
