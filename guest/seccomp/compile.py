#!/usr/bin/env python3
"""Compiles a seccomp profile in Docker's JSON form to a BPF program: compile.py PROFILE OUTPUT

The rules are taken as for a container with Docker's default capabilities on this architecture. The
result is what crun and the agent install as it is: compiling the profile for every container would
cost more than starting it.
"""
import errno
import json
import platform
import sys

import seccomp

CAPABILITIES = {
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
GUEST_KERNEL = (6, 1)
COMPARISONS = {
    "SCMP_CMP_NE": seccomp.NE, "SCMP_CMP_LT": seccomp.LT, "SCMP_CMP_LE": seccomp.LE,
    "SCMP_CMP_EQ": seccomp.EQ, "SCMP_CMP_GE": seccomp.GE, "SCMP_CMP_GT": seccomp.GT,
    "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}


def action(name, number):
    if name == "SCMP_ACT_ALLOW":
        return seccomp.ALLOW
    if name == "SCMP_ACT_ERRNO":
        return seccomp.ERRNO(errno.EPERM if number is None else number)
    raise SystemExit(f"{sys.argv[1]}: action {name} is not known here")


def applies(rule, machine):
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    kernel = includes.get("minKernel")
    return (
        set(includes.get("caps") or []) <= CAPABILITIES
        and not set(excludes.get("caps") or []) & CAPABILITIES
        and machine in (includes.get("arches") or [machine])
        and machine not in (excludes.get("arches") or [])
        and (not kernel or tuple(map(int, kernel.split("."))) <= GUEST_KERNEL)
    )


def main(profile_path, output_path):
    with open(profile_path, encoding="utf-8") as file:
        profile = json.load(file)
    machine = MACHINES[platform.machine()]
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    filter = seccomp.SyscallFilter(default)
    filter.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree instead of a list
    # None of the profile's sub-architectures: the guest's kernel runs no 32-bit programs, and every
    # container pays for the length of its filter. What calls with another architecture is killed.
    for rule in profile["syscalls"]:
        if not applies(rule, machine):
            continue
        act = action(rule["action"], rule.get("errnoRet"))
        if rule["action"] == profile["defaultAction"] and rule.get("errnoRet") == profile.get("defaultErrnoRet"):
            continue
        args = [
            seccomp.Arg(a["index"], COMPARISONS[a["op"]], a["value"], a.get("valueTwo") or 0)
            for a in rule.get("args") or []
        ]
        for name in rule["names"]:
            try:
                number = seccomp.resolve_syscall(seccomp.Arch(), name)
            except ValueError:
                continue  # a system call newer than this libseccomp: denied by default
            # Rules that ask for the same argument twice cannot be one rule; such are alternatives.
            if len({a["index"] for a in rule.get("args") or []}) == len(args):
                filter.add_rule(act, number, *args)
            else:
                for arg in args:
                    filter.add_rule(act, number, arg)
    with open(output_path, "wb") as file:
        filter.export_bpf(file)


main(sys.argv[1], sys.argv[2])
