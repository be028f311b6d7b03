/* fuzz_smtp_command.c - commands of hostile SMTP clients, one a line, and what XCLIENT and AUTH carry.
 *
 * What must hold: everything that a command points at lies within its line; an address that was taken is one
 * that mailbox_parse takes, with no byte in it that could end a line; a refusal has a code of its own class
 * and an enhanced code that fits. */
#include "smtp/in_command.h"

#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

static void check_within(str_t line, str_t part)
{
	if (part.n > 0)
		MUST(part.p >= line.p && part.p + part.n <= line.p + line.n);
}

static void check_refusal(const struct in_refusal *why)
{
	MUST(why->code == 500 || why->code == 501 || why->code == 555);
	MUST(why->text[0] == '5' && why->text[1] == '.');
}

static void check_address(const struct in_command *c)
{
	struct mailbox again;
	for (size_t i = 0; i < c->box.email.n; i++)
		MUST((unsigned char)c->box.email.p[i] >= 32 && c->box.email.p[i] != 127);
	MUST(mailbox_parse(c->box.email, &again) == 0);
	MUST(str_eq(again.email, c->box.email) && str_eq(again.domain, c->box.domain));
}

static void check_line(str_t line)
{
	struct in_command c;
	struct in_refusal why = {0};
	int rc = in_command_parse(line, &c, &why);
	MUST(err_kind() == ERR_NONE);
	check_within(line, c.arg);
	check_within(line, c.initial);
	if (rc != 0) {
		check_refusal(&why);
		return;
	}
	check_within(line, c.envid);
	check_within(line, c.notify);
	check_within(line, c.orcpt);
	if (c.verb == IN_MAIL || c.verb == IN_RCPT) {
		check_within(line, c.box.email);
		check_address(&c);
	}
	if (c.verb == IN_XCLIENT) {
		struct in_xclient x;
		if (in_xclient_parse(c.arg, &x, &why) != 0)
			check_refusal(&why);
		else
			MUST(x.port <= 65535 && x.dest_port <= 65535);
		MUST(err_kind() == ERR_NONE);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	str_t rest = str_mk((const char *)data, n), line, authz, authc, password;
	if (in_sasl_plain_parse(rest, &authz, &authc, &password)) {
		MUST(authc.n > 0 && authz.n > 0);
		check_within(rest, authz);
		check_within(rest, password);
	}
	while (rest.n > 0 && str_split(&rest, '\n', &line))
		check_line(line);
	return 0;
}
