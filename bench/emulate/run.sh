#!/usr/bin/env bash
# Runs a package's tests on an emulated CPU with AVX-512, for machines without it.
#
#   bench/emulate/run.sh PACKAGE [TEST FLAGS]
#   bench/emulate/run.sh ./internal/kernel -test.v -test.run Tile
#
# The test binary is the only program of a small Linux that the Bochs emulator
# boots; its output appears as it is written, and its exit code is this script's.
# Debian's Bochs executes some 20 million instructions a second: choose tests
# with -test.run. Needs Debian's (or Ubuntu's) bochs, bochs-term, isolinux,
# syslinux-common, genisoimage and cpio; the kernel is taken from the package
# archive without being installed.
#
#   NAC_EMULATE_CACHE  folder for the kernel and the images, default ~/.cache/nac-emulate
#   NAC_EMULATE_CPU    a Bochs CPU model, default corei7_skylake_x; corei7_haswell_4770 has AVX2 only
#   NAC_EMULATE_FILES  files to take along, relative to $NAC_SHARED; tests find them there
#   NAC_EMULATE_ENV    more variables for the test, one a line
#   NAC_EMULATE_BOCHS  a Bochs of one's own instead of Debian's (see README.md)
#   NAC_EMULATE_BIOS   its folder bios, of BIOS images
#   NAC_EMULATE_LIMIT  seconds until the machine is switched off, default 1800
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

package=${1:?usage: bench/emulate/run.sh PACKAGE [TEST FLAGS]}
shift
cache=${NAC_EMULATE_CACHE:-$HOME/.cache/nac-emulate}
cpu=${NAC_EMULATE_CPU:-corei7_skylake_x}
shared=${NAC_SHARED:-../shared}
isolinux=${ISOLINUX:-/usr/lib/ISOLINUX/isolinux.bin}
ldlinux=${LDLINUX:-/usr/lib/syslinux/modules/bios/ldlinux.c32}

emulator=${NAC_EMULATE_BOCHS:-bochs}
for tool in "$emulator" genisoimage cpio script dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "emulate: $tool is missing: apt-get install bochs bochs-term isolinux syslinux-common genisoimage cpio bsdutils" >&2; exit 2; }
done
mkdir -p "$cache"
work=$(mktemp -d "$cache/run.XXXXXX")
running=
trap '[[ -z "$running" ]] || kill "$running" 2>/dev/null || true; rm -rf "$work"' EXIT

if [[ ! -s "$cache/vmlinuz" ]]; then
  name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  (cd "$work" && apt-get -qq download "$name" 2>/dev/null && dpkg-deb -x "$name"_*.deb kernel)
  cp "$work"/kernel/boot/vmlinuz-* "$cache/vmlinuz.part"
  mv "$cache/vmlinuz.part" "$cache/vmlinuz"
fi

root=$work/root
mkdir -p "$root/test/work" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$work/cd/isolinux"
export CGO_ENABLED=0 GOOS=linux GOARCH=amd64
go build -o "$root/init" ./bench/emulate/init
go test -c -ldflags=-w -o "$root/test/binary" "$package"
folder=$(go list -f '{{.Dir}}' "$package")
if [[ -d "$folder/testdata" ]]; then cp -r "$folder/testdata" "$root/test/work/"; fi
printf '%s\n' "$@" >"$root/test/flags"
{
  echo NAC_SHARED=/test/shared
  if [[ "$cpu" == corei7_skylake_x ]]; then echo NAC_EMULATE_NEEDS=avx512f avx512dq avx512vl avx512bw; fi
  printf '%s\n' "${NAC_EMULATE_ENV:-}"
} >"$root/test/env"
for pattern in ${NAC_EMULATE_FILES:-}; do
  (cd "$shared" && cp -r --parents $pattern "$root/test/shared" 2>/dev/null) ||
    { mkdir -p "$root/test/shared" && (cd "$shared" && cp -r --parents $pattern "$root/test/shared"); }
done

(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/cd/initrd"
cp "$cache/vmlinuz" "$work/cd/vmlinuz"
cp "$isolinux" "$ldlinux" "$work/cd/isolinux/"
# Bochs 2.7 misstates the size of the compacted XSAVE area (leaf 13), on which
# Linux would give up AVX: noxsaves and no xsavec keep it from looking.
cat >"$work/cd/isolinux/isolinux.cfg" <<CONFIG
DEFAULT test
PROMPT 0
LABEL test
KERNEL /vmlinuz
APPEND initrd=/initrd console=ttyS0,115200 quiet noxsaves clearcpuid=xsavec mitigations=off nokaslr nosmp panic=-1 reboot=t lpj=4000000 clocksource=tsc tsc=reliable
CONFIG
genisoimage -quiet -R -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table -o "$work/cd.iso" "$work/cd"

bios=/usr/share/bochs/BIOS-bochs-latest vgabios=/usr/share/vgabios/vgabios.bin display=term
if [[ -n "${NAC_EMULATE_BIOS:-}" ]]; then
  bios=$NAC_EMULATE_BIOS/BIOS-bochs-latest vgabios=$NAC_EMULATE_BIOS/VGABIOS-lgpl/VGABIOS-lgpl-latest.bin display=nogui
fi
start=
if [[ $("$emulator" --help 2>&1 || true) == *" -rc "* ]]; then
  # Debian's Bochs has its debugger built in and waits for a command.
  echo c >"$work/start"
  start="-rc start"
fi
cat >"$work/bochsrc" <<CONFIG
megs: 1024
cpu: model=$cpu, count=1, ips=50000000, reset_on_triple_fault=0
romimage: file=$bios
vgaromimage: file=$vgabios
ata0: enabled=1
ata0-master: type=cdrom, path=$work/cd.iso, status=inserted
boot: cdrom
clock: sync=none, time0=local
com1: enabled=1, mode=file, dev=$work/serial
display_library: $display
log: $work/log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
speaker: enabled=0
CONFIG

touch "$work/serial"
# Bochs insists on a terminal; script gives it one that nobody sees.
(cd "$work" && TERM=vt100 exec timeout "${NAC_EMULATE_LIMIT:-1800}" script -qec "$emulator -q -f bochsrc $start" /dev/null >/dev/null 2>&1 </dev/null) &
running=$!
tail -n +1 -f --pid="$running" "$work/serial" | stdbuf -oL tr -d '\r' || true
wait "$running" || true
running=
code=$(tr -d '\r' <"$work/serial" | sed -n 's/^emulate: exit \([0-9]*\)$/\1/p' | tail -1)
if [[ -z "$code" ]]; then
  cp "$work/log" "$cache/log"
  echo "emulate: the machine stopped before the test ended (or the time limit did); see $cache/log" >&2
  exit 2
fi
exit "$code"
