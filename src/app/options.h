/* options.h - the command line of cirrusd. */
#pragma once

#include "base/defs.h"

struct options {
	const char *policy;
	const char *user; /* NULL: stay who we are */
	bool is_validating;
};
/** Parses; prints and exits by itself for --help, --version and mistakes (status 2). */
void options_parse(struct options *o, int argc, char **argv);
