/* options.c - --policy FILE [--user NAME] [--validate] [--version] [--help]. */
#include "app/options.h"

#include "app/version.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

/* where existing installations have it */
#define DEFAULT_POLICY "/opt/kumomta/etc/policy/init.lua"

static const char usage[] =
	"Usage: cirrusd [--policy FILE] [--user NAME] [--validate] [--version] [--help]\n"
	"\n"
	"  --policy FILE  the Lua policy to run (default " DEFAULT_POLICY ")\n"
	"  --user NAME    the user to become; when started as root\n"
	"  --validate     run pre_init, init and validate_config, open no port, exit 0 or 1\n"
	"  --version, -V  print the version\n"
	"  --help, -h     print this text\n"
	"\n"
	"Environment: CIRRUS_LOG or KUMOD_LOG (diagnostic filter, e.g. kumod=debug,lua=info),\n"
	"KUMO_NODE_ID, KUMO_NODE_ID_PATH, KUMO_AVAILABLE_PARALLELISM (number of workers);\n"
	"docs/operations.md has all of it.\n";

void options_parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"policy", required_argument, NULL, 'p'}, {"user", required_argument, NULL, 'u'},
		{"validate", no_argument, NULL, 'v'},	  {"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0}};
	*o = (struct options){.policy = DEFAULT_POLICY};
	for (int c; (c = getopt_long(argc, argv, "hV", longs, NULL)) != -1;) {
		switch (c) {
		case 'p':
			o->policy = optarg;
			break;
		case 'u':
			o->user = optarg;
			break;
		case 'v':
			o->is_validating = true;
			break;
		case 'V':
			printf("cirrusd %s\n", CIRRUS_VERSION);
			exit(0);
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "cirrusd: unexpected argument `%s`\n%s", argv[optind], usage);
		exit(2);
	}
}
