package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"nac/beam/nacbeam"
	"nac/quickstart"
)

// asProgram in the environment makes the test binary nac-beam: as a command, and as a worker of a
// runner that starts processes.
const asProgram = "NAC_BEAM_PROGRAM"

// What TestMain makes: folders of the plain nac and of the built-in network and images.
var nacProgram, embedded string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "nac-beam-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		nacProgram, embedded = filepath.Join(dir, "nac"), filepath.Join(dir, "data")
		if err := quickstart.Extract(embedded); err != nil {
			panic(err)
		}
		build := exec.Command("go", "build", "-o", nacProgram, "./cmd/nac")
		build.Dir = filepath.Join("..", "..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v: %s", err, out))
		}
		return m.Run()
	}())
}

func checkpoint() string  { return filepath.Join(embedded, filepath.FromSlash(quickstart.Checkpoint)) }
func imageFolder() string { return filepath.Join(embedded, "images_classic") }

func list(name string) string {
	return filepath.Join(embedded, "benchmark_imglist", quickstart.Benchmark, name+".txt")
}

// standard is how the built-in network's images are normalised.
func standard() []string {
	three := func(v float32) string { return fmt.Sprintf("%v,%v,%v", v, v, v) }
	return []string{"--mean", three(quickstart.Mean), "--std", three(quickstart.Std)}
}

// plain runs nac, which must end with code.
func plain(t *testing.T, code int, args ...string) {
	t.Helper()
	out, err := exec.Command(nacProgram, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == code {
		return
	}
	if err != nil || code != 0 {
		t.Fatalf("nac %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func program(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

func onBeam(t *testing.T, args ...string) {
	t.Helper()
	if out, err := program(t, args...).CombinedOutput(); err != nil {
		t.Fatalf("nac-beam %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withBad writes a list with lines of another and an image that is none.
func withBad(t *testing.T, name string, n int) string {
	t.Helper()
	bad := filepath.Join(t.TempDir(), "bad.png")
	if err := os.WriteFile(bad, []byte("no image"), 0o666); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(read(t, list(name))), "\n")[:n]
	text := strings.Join(lines[:n/3], "") + bad + " 0\n" + strings.Join(lines[n/3:], "")
	file := filepath.Join(t.TempDir(), name+".txt")
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// fitted is a detector of nac on few images.
func fitted(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plain.nac")
	plain(t, 0, append([]string{
		"fit", "--model", checkpoint(), "--arch", quickstart.Arch, "--id", list("main_train_fashion"), "--root", imageFolder(),
		"--images", "100", "--calibration-images", "50", "--detector", "nac", "--quiet", "-o", file,
	}, standard()...)...)
	return file
}

// runners are flags that run a pipeline in each way that is at hand.
func runners(t *testing.T) map[string][]string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if _, err := prism.CreateJobServer(t.Context(), prism.Options{Port: port}); err != nil {
		t.Fatal(err)
	}
	universal := []string{"--runner", "universal", "--endpoint", fmt.Sprintf("localhost:%d", port)}
	return map[string][]string{
		"prism":                       nil,
		"prism, a worker process":     processes(t),
		"universal, loopback":         append(universal, "--environment_type", "LOOPBACK"),
		"universal, a worker process": append(universal, processes(t)...),
	}
}

// processes makes the runner start workers as processes.
func processes(t *testing.T) []string {
	t.Helper()
	config, err := json.Marshal(map[string]any{"command": os.Args[0], "env": map[string]string{asProgram: "1"}})
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--environment_type", "PROCESS", "--environment_config", string(config)}
}

// nac-beam fit writes the file of nac fit, counts, calibration and all, and says what it left
// out.
func TestFitIsNacFit(t *testing.T) {
	id := withBad(t, "main_train_fashion", 150)
	dir := t.TempDir()
	like := fitted(t)
	for name, to := range map[string]struct{ plain, beam []string }{
		"nac":      {[]string{"--detector", "nac"}, []string{"--method", "nac"}},
		"nac_auto": {},
		"counted":  {[]string{"--like", like}, []string{"--like", like}},
	} {
		want, got := filepath.Join(dir, name+".want"), filepath.Join(dir, name+".got")
		base := append([]string{"fit", "--model", checkpoint(), "--arch", quickstart.Arch, "--root", imageFolder()}, standard()...)
		if name == "counted" {
			base = base[:len(base)-4] // the transform is the other's
		}
		plain(t, 0, append(append(base, to.plain...), "--id", id, "--on-error", "skip", "--quiet", "-o", want)...)
		onBeam(t, append(append(base, to.beam...), "--id-images", id, "--out", got)...)
		if !bytes.Equal(read(t, got), read(t, want)) {
			t.Errorf("%s: another detector than nac fit's", name)
		}
		failures := string(read(t, filepath.Join(got+".failures", "failures-00000.jsonl")))
		if strings.Count(failures, "\n") != 1 || !strings.Contains(failures, "bad.png") {
			t.Errorf("%s: dead letters %q", name, failures)
		}
	}
}

// shards writes tar archives in WebDataset's form, with a member that is no image.
func shards(t *testing.T, name string, n int) string {
	t.Helper()
	dir := t.TempDir()
	lines := strings.Split(strings.TrimSpace(string(read(t, list(name)))), "\n")[:n]
	for part := range 2 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		add := func(name string, data []byte) {
			if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		for i, line := range lines[part*n/2 : (part+1)*n/2] {
			file, label, _ := strings.Cut(line, " ")
			add(fmt.Sprintf("%05d.png", i), read(t, filepath.Join(imageFolder(), file)))
			add(fmt.Sprintf("%05d.cls", i), []byte(label))
			if i == 7 && part == 1 {
				add("bad.png", []byte("no image"))
				add("bad.cls", []byte("0"))
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("set-%05d.tar", part)), b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// nac-beam score writes the lines of nac score, of lists and of tar shards, on every
// runner.
func TestScoreIsNacScore(t *testing.T) {
	detector := fitted(t)
	list, tars := withBad(t, "test_fashion", 120), shards(t, "test_fashion", 60)
	dir := t.TempDir()
	want := filepath.Join(dir, "want.jsonl")
	plain(t, 3, "score", detector, list, tars, "--root", imageFolder(), "--quiet", "--out", want) // 3: some failed
	if n := bytes.Count(read(t, want), []byte("\n")); n != 182 {
		t.Fatalf("%d lines", n)
	}
	for name, flags := range runners(t) {
		out := filepath.Join(dir, name)
		onBeam(t, append(append([]string{"score", "--detector", detector, "--root", imageFolder(), "--out", out}, flags...), list, tars)...)
		if !bytes.Equal(read(t, filepath.Join(out, "scores-00000.jsonl")), read(t, want)) {
			t.Errorf("%s: other lines than nac score's", name)
		}
		failures := string(read(t, filepath.Join(out, "failures-00000.jsonl")))
		if strings.Count(failures, `"path"`) != 2 || strings.Count(failures, "set-00001.tar/bad.png") != 2 {
			t.Errorf("%s: dead letters %q", name, failures)
		}
	}
}

// The detector and the metrics are those of nac bench, to the last bit.
func TestBenchIsNacBench(t *testing.T) {
	dir := t.TempDir()
	settings, like, detector := filepath.Join(dir, "s.yaml"), filepath.Join(dir, "like.nac"), filepath.Join(dir, "beam.nac")
	text := "layers:\n- {layer: avgpool, M: 50, O: 50, alpha: 10}\n- {layer: layer3, M: 50, O: 20, alpha: 1}\n"
	if err := os.WriteFile(settings, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	classifier := []string{"--arch", quickstart.Arch}
	plain(t, 0, append(append([]string{
		"bench", quickstart.Benchmark, "--checkpoint", checkpoint(), "--data", embedded, "--detectors", "nac", "--settings", settings,
		"--cache", "off", "--quiet", "--out", filepath.Join(dir, "plain"),
	}, classifier...), standard()...)...)
	var plainReport struct {
		Methods []struct {
			Near, Far []struct {
				Set    string
				Result struct{ FPR95, AUROC, AUPRIn, AUPROut float64 }
			}
		}
	}
	if err := json.Unmarshal(read(t, filepath.Join(dir, "plain", "report.json")), &plainReport); err != nil {
		t.Fatal(err)
	}

	// The settings come to Beam by a detector of few images.
	fit := append([]string{"fit", "--model", checkpoint(), "--root", imageFolder(), "--calibration", list("val_fashion")}, classifier...)
	plain(t, 0, append(append(fit, "--id", list("sub_train_fashion"), "--images", "50", "--detector", "nac", "--settings", settings, "--quiet", "-o", like), standard()...)...)
	onBeam(t, append(fit, "--id-images", list("main_train_fashion"), "--like", like, "--out", detector)...)
	out := filepath.Join(dir, "beam")
	onBeam(t, "bench", "--detector", detector, "--root", imageFolder(), "--id-images", list("test_fashion"),
		"--ood", "bag="+list("test_bag")+",ankle_boot="+list("test_ankle_boot")+",mnist="+list("test_mnist"), "--out", out)
	var reports []nacbeam.Report
	if err := json.Unmarshal(read(t, filepath.Join(out, "report.json")), &reports); err != nil {
		t.Fatal(err)
	}
	got, want := map[string][4]float64{}, map[string][4]float64{}
	for _, r := range reports {
		got[r.Name] = [4]float64{r.FPR95, r.AUROC, r.AUPRIn, r.AUPROut}
	}
	for _, s := range append(plainReport.Methods[0].Near, plainReport.Methods[0].Far...) {
		want[s.Set] = [4]float64{s.Result.FPR95, s.Result.AUROC, s.Result.AUPRIn, s.Result.AUPROut}
	}
	if len(want) != 3 || !reflect.DeepEqual(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
}

// A worker that is killed in the middle fails a job of Prism, which tries nothing again, or leaves it
// waiting, and it is ended as by its user; files are whole or absent, and the same command then gives the lines of nac score.
func TestLostWorkerLeavesNoPart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	detector, dir := fitted(t), t.TempDir()
	long, want, out := filepath.Join(dir, "long.txt"), filepath.Join(dir, "want.jsonl"), filepath.Join(dir, "out")
	if err := os.WriteFile(long, bytes.Repeat(read(t, list("test_fashion")), 2), 0o666); err != nil {
		t.Fatal(err)
	}
	worker, pidFile := filepath.Join(dir, "worker"), filepath.Join(dir, "pid")
	script := fmt.Sprintf("#!/bin/sh\necho $$ > %s.new && mv %[1]s.new %[1]s\n%s=1 exec %s \"$@\"\n", pidFile, asProgram, os.Args[0])
	if err := os.WriteFile(worker, []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"score", "--detector", detector, "--root", imageFolder(), "--out", out,
		"--environment_type", "PROCESS", "--environment_config", fmt.Sprintf(`{"command": %q}`, worker), long,
	}
	cmd := program(t, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	killed, stopped := false, false
	var patience <-chan time.Time
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case err := <-ended:
			if err == nil || !killed || !stopped && !strings.Contains(said.String(), "worker disconnected") {
				t.Fatalf("killed: %v; error %v\n%s", killed, err, said.String())
			}
			if left, err := filepath.Glob(filepath.Join(out, "*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			plain(t, 0, "score", detector, long, "--root", imageFolder(), "--quiet", "--out", want)
			onBeam(t, args...)
			if !bytes.Equal(read(t, filepath.Join(out, "scores-00000.jsonl")), read(t, want)) {
				t.Error("other lines than nac score's")
			}
			return
		case <-tick.C:
			if pid := busyProcess(pidFile, 40); !killed && pid > 0 {
				p, err := os.FindProcess(pid)
				if err == nil {
					err = p.Kill()
				}
				if err != nil {
					t.Error(err)
				}
				killed, patience = true, time.After(20*time.Second)
			}
		case <-patience:
			stopped = true
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
}

// busyProcess is the process whose number is in a file, once it has computed for so many hundredths of
// a second; 0 before.
func busyProcess(pidFile string, hundredths int) int {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if user, err := strconv.Atoi(fields[11]); err != nil || user < hundredths {
		return 0
	}
	return pid
}
