#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lameduck_fuzz_bodies::same(bytes));
