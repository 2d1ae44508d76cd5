/* replay.c: runs a fuzzer with the files that its arguments name, and with no input at all: so a core
   that the fuzzers do not fit any more is seen by the C tests, without libFuzzer. */
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay(const char *name) {
    static char data[1 << 20];
    FILE *file = fopen(name, "rb");
    CHECK(file);
    size_t size = fread(data, 1, sizeof data, file);
    CHECK(size < sizeof data && !ferror(file));
    CHECK_EQUAL(fclose(file), 0);
    CHECK_EQUAL(LLVMFuzzerTestOneInput((const uint8_t *)data, size), 0);
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    CHECK_EQUAL(LLVMFuzzerTestOneInput((const uint8_t *)"", 0), 0);
    for (int i = 1; i < argc; i++) {
        replay(argv[i]);
    }
    return 0;
}
