/* What an operator or a Vault hands over. The first byte chooses: 'j': the rest is the JSON form of a
 * KeySource; else it is a certificate and, behind the first NUL (or again the same text), a key. Nothing
 * breaks, nothing leaks; an error says why; what is parsed has a name; what is usable serves. */
#include "base/err.h"
#include "net/keysource.h"
#include "net/tls_impl.h"

#include <openssl/err.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect_invalid(bool is_failed)
{
	if (!is_failed || !err_is(ERR_INVALID) || err_text()[0] == 0)
		abort();
	err_clear();
}

static void fuzz_json(str_t text)
{
	struct keysource ks, copy;
	json_error_t e;
	json_t *v = text.n < 4000 ? json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e) : NULL,
	       *dump = NULL;
	if (v == NULL)
		return;
	if (keysource_parse_json(v, &ks) != 0) {
		expect_invalid(true);
		json_decref(v);
		return;
	}
	json_decref(v);
	keysource_copy(&copy, &ks);
	keysource_param_dump(&ks, &dump);
	if (keysource_text(&ks)[0] == 0 || strcmp(keysource_id(&ks), keysource_id(&copy)) != 0 ||
	    dump == NULL)
		abort();
	json_decref(dump);
	keysource_fini(&ks);
	keysource_fini(&copy);
}

static void fuzz_pem(str_t text)
{
	ptrdiff_t nul = str_chr(text, 0, 0);
	struct secret *cert = secret_new(nul >= 0 ? str_head(text, (size_t)nul) : text);
	struct secret *key = secret_new(nul >= 0 ? str_skip(text, (size_t)nul + 1) : text);
	struct tls_server_params p = {.credentials = {cert, key, "C", "K"}};
	struct tls_server *srv = tls_server_new(&p);
	if (srv == NULL)
		expect_invalid(true);
	tls_server_unref(srv);
	STACK_OF(X509_NAME) *names = NULL;
	X509_STORE *store = tls_store_load(cert, "C", &names);
	if (store == NULL)
		expect_invalid(true);
	X509_STORE_free(store);
	sk_X509_NAME_pop_free(names, X509_NAME_free);
	if (ERR_peek_error() != 0)
		abort();
	secret_unref(cert);
	secret_unref(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	str_t rest = str_mk((const char *)data + 1, size - 1);
	if (data[0] == 'j')
		fuzz_json(rest);
	else
		fuzz_pem(rest);
	return 0;
}
