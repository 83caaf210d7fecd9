"""Names of x86 processor features by where CPUID tells them: those of Linux, which people know from /proc/cpuinfo.

Source: Intel SDM volume 2A, CPUID; AMD 24594 for the extended leaf; names from Linux's cpufeatures.h.
"""

from __future__ import annotations

from bootwire.wire.report import Cpuid

_LEAF_1_EDX = (
    "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2"
    " ss ht tm ia64 pbe"
)
_LEAF_1_ECX = (
    "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2"
    " x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor"
)
_LEAF_7_EBX = (
    "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx"
    " smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"
)
_EXTENDED_ECX = "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a"
_EXTENDED_EDX = "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm"

_TABLES = {
    (1, 0): ((_LEAF_1_EDX, "edx"), (_LEAF_1_ECX, "ecx")),
    (7, 0): ((_LEAF_7_EBX, "ebx"),),
    (0x8000_0001, 0): ((_EXTENDED_ECX, "ecx"), (_EXTENDED_EDX, "edx")),
}


def features(answer: Cpuid) -> tuple[str, ...]:
    """Names of the features that one answer says are there, in the order of their bits."""
    tables = _TABLES.get((answer.leaf, answer.sub_leaf), ())
    return tuple(
        name
        for names, register in tables
        for bit, name in enumerate(names.split())
        if name != "-" and getattr(answer, register) >> bit & 1
    )
