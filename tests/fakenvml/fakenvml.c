/* fakenvml: a libnvidia-ml.so.1 without a driver, so that the real pynvml can be tested on any machine.
 *
 * Written from the structures that nvidia-ml-py declares; contains nothing of the vendor's header.
 *
 * State is a text file of lines "key value", named by $FAKENVML or fakenvml_config(path). It is read again when it has
 * changed, so a test changes the GPUs while the process that looks at them runs.
 *
 *   count N                    number of GPUs (1)
 *   init CODE                  what nvmlInit returns
 *   delay_us N                 every call takes so long
 *   delay_us.FUNCTION N        this function does
 *   err.FUNCTION CODE          this function fails, for every GPU
 *   gpu0.FIELD VALUE           a fact of a GPU; fields and their usual values stand beside the functions
 *   gpu0.lost 1                every call about this GPU returns GPU_IS_LOST
 *   gpu0.err.FUNCTION CODE     this function fails for this GPU
 *   gpu0.procs PID:BYTES[:GPU_INSTANCE:COMPUTE_INSTANCE],...     bytes -1: not available
 *   gpu0.links.N.peer BUS_ID   where NVLink N leads
 *   gpu0.gpm 0                 the GPU has no activity counters; gpu0.gpm.METRIC VALUE or "none"
 *   gpu0.xid CODE, gpu0.xid_seq N    an error event, told once for each greater N
 *   topology.0.1 LEVEL         what lies between two GPUs (50: the sockets)
 *
 * Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fakenvml.c
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef int status;

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
};

enum { MOST_GPUS = 64, MOST_MIGS = 8 };

typedef struct {
    int gpu;
    int mig; /* -1: the whole GPU */
} device;

static device gpus[MOST_GPUS];
static device migs[MOST_GPUS][MOST_MIGS];
static char config_path[4096];
static int init_count;
static u64 call_count;

void fakenvml_config(const char *path) { snprintf(config_path, sizeof config_path, "%s", path); }

u64 fakenvml_calls(void) { return call_count; }

/* --- the state file --------------------------------------------------------------------------------------- */

enum { MOST_LINES = 1024 };

static struct { char key[96], value[1024]; } lines[MOST_LINES];
static int line_count;
static struct stat seen;
static char lock;

static int has_changed(const struct stat *now) {
    return now->st_ino != seen.st_ino || now->st_size != seen.st_size ||
           now->st_mtim.tv_sec != seen.st_mtim.tv_sec || now->st_mtim.tv_nsec != seen.st_mtim.tv_nsec ||
           now->st_ctim.tv_sec != seen.st_ctim.tv_sec || now->st_ctim.tv_nsec != seen.st_ctim.tv_nsec;
}

static void read_lines(const char *path) {
    struct stat now;
    char line[2048];
    FILE *file;
    if (!path || stat(path, &now) || !has_changed(&now) || !(file = fopen(path, "r"))) return;
    seen = now;
    line_count = 0;
    while (line_count < MOST_LINES && fgets(line, sizeof line, file)) {
        char *space = strchr(line, ' ');
        if (!space) continue;
        *space = 0;
        space[1 + strcspn(space + 1, "\r\n")] = 0;
        snprintf(lines[line_count].key, sizeof lines[0].key, "%.95s", line);
        snprintf(lines[line_count].value, sizeof lines[0].value, "%.1023s", space + 1);
        line_count++;
    }
    fclose(file);
}

static int look_up(const char *key, char *value, size_t size) {
    int is_found = 0;
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) usleep(10);
    read_lines(config_path[0] ? config_path : getenv("FAKENVML"));
    for (int i = line_count - 1; i >= 0 && !is_found; i--) {
        if (strcmp(lines[i].key, key)) continue;
        snprintf(value, size, "%s", lines[i].value);
        is_found = 1;
    }
    __atomic_clear(&lock, __ATOMIC_RELEASE);
    return is_found;
}

static u64 number(const char *key, u64 usual) {
    char value[256];
    return look_up(key, value, sizeof value) ? strtoull(value, NULL, 0) : usual;
}

static u64 gpu_number(int gpu, const char *field, u64 usual) {
    char key[256];
    snprintf(key, sizeof key, "gpu%d.%s", gpu, field);
    return number(key, usual);
}

static void gpu_text(int gpu, const char *field, const char *usual, char *out, u32 size) {
    char key[256], value[1024];
    snprintf(key, sizeof key, "gpu%d.%s", gpu, field);
    snprintf(out, size, "%s", look_up(key, value, sizeof value) ? value : usual);
}

/* --- what every call does first --------------------------------------------------------------------------- */

static status enter(const char *function, const device *d, int needs_init) {
    char key[256];
    u64 code;
    call_count++;
    snprintf(key, sizeof key, "delay_us.%s", function);
    u64 delay_us = number(key, number("delay_us", 0));
    if (delay_us) usleep((useconds_t)delay_us);
    if (needs_init && !init_count) return UNINITIALIZED;
    snprintf(key, sizeof key, "err.%s", function);
    if ((code = number(key, 0))) return (status)code;
    if (!d) return SUCCESS;
    if (gpu_number(d->gpu, "lost", 0)) return GPU_IS_LOST;
    snprintf(key, sizeof key, "gpu%d.err.%s", d->gpu, function);
    return (status)number(key, 0);
}

#define ENTER(d)                                      \
    do {                                              \
        status entered = enter(__func__, d, 1);       \
        if (entered) return entered;                  \
    } while (0)

/* A function whose answer is one number of the state file. */
#define NUMBER(function, type, field, usual)          \
    status function(device *d, type *out) {           \
        ENTER(d);                                     \
        *out = (type)gpu_number(d->gpu, field, usual);\
        return SUCCESS;                               \
    }

/* --- library and system ----------------------------------------------------------------------------------- */

status nvmlInitWithFlags(u32 flags) {
    (void)flags;
    status code = enter("nvmlInit", NULL, 0);
    if (!code) code = (status)number("init", 0);
    if (!code) init_count++;
    return code;
}

status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

status nvmlShutdown(void) {
    if (!init_count) return UNINITIALIZED;
    init_count--;
    return SUCCESS;
}

const char *nvmlErrorString(status code) {
    switch (code) {
        case 0: return "Success";
        case 1: return "Uninitialized";
        case 2: return "Invalid Argument";
        case 3: return "Not Supported";
        case 4: return "Insufficient Permissions";
        case 6: return "Not Found";
        case 9: return "Driver Not Loaded";
        case 10: return "Timeout";
        case 12: return "NVML Shared Library Not Found";
        case 13: return "Function Not Found";
        case 15: return "GPU is lost";
        case 18: return "Driver/library version mismatch";
        default: return "Unknown Error";
    }
}

static status system_text(const char *function, const char *key, const char *usual, char *out, u32 size) {
    char value[256];
    status code = enter(function, NULL, 1);
    if (code) return code;
    snprintf(out, size, "%s", look_up(key, value, sizeof value) ? value : usual);
    return SUCCESS;
}

status nvmlSystemGetDriverVersion(char *out, u32 size) {
    return system_text(__func__, "driver", "999.99.01", out, size);
}

status nvmlSystemGetNVMLVersion(char *out, u32 size) { return system_text(__func__, "nvml", "13.999.99", out, size); }

status nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ENTER(NULL);
    *out = (int)number("cuda", 13000);
    return SUCCESS;
}

status nvmlSystemGetCudaDriverVersion(int *out) {
    ENTER(NULL);
    *out = (int)number("cuda", 13000);
    return SUCCESS;
}

/* --- finding devices -------------------------------------------------------------------------------------- */

status nvmlDeviceGetCount_v2(u32 *out) {
    ENTER(NULL);
    *out = (u32)number("count", 1);
    return SUCCESS;
}

status nvmlDeviceGetHandleByIndex_v2(u32 index, device **out) {
    ENTER(NULL);
    if (index >= number("count", 1) || index >= MOST_GPUS) return INVALID_ARGUMENT;
    gpus[index].gpu = (int)index;
    gpus[index].mig = -1;
    *out = &gpus[index];
    return gpu_number((int)index, "lost", 0) ? GPU_IS_LOST : SUCCESS;
}

status nvmlDeviceGetIndex(device *d, u32 *out) {
    ENTER(d);
    *out = (u32)d->gpu;
    return SUCCESS;
}

/* --- what a device is ------------------------------------------------------------------------------------- */

status nvmlDeviceGetName(device *d, char *out, u32 size) {
    ENTER(d);
    gpu_text(d->gpu, "name", "NVIDIA Fake H100 80GB", out, size);
    return SUCCESS;
}

status nvmlDeviceGetUUID(device *d, char *out, u32 size) {
    char usual[96];
    ENTER(d);
    if (d->mig < 0)
        snprintf(usual, sizeof usual, "GPU-fake-%d", d->gpu);
    else
        snprintf(usual, sizeof usual, "MIG-fake-%d-%d", d->gpu, d->mig);
    gpu_text(d->gpu, d->mig < 0 ? "uuid" : "miguuid", usual, out, size);
    return SUCCESS;
}

status nvmlDeviceGetSerial(device *d, char *out, u32 size) {
    ENTER(d);
    gpu_text(d->gpu, "serial", "1650000000042", out, size);
    return SUCCESS;
}

status nvmlDeviceGetVbiosVersion(device *d, char *out, u32 size) {
    ENTER(d);
    gpu_text(d->gpu, "vbios", "96.00.99.00.01", out, size);
    return SUCCESS;
}

status nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    ENTER(d);
    *major = (int)gpu_number(d->gpu, "cc_major", 9);
    *minor = (int)gpu_number(d->gpu, "cc_minor", 0);
    return SUCCESS;
}

typedef struct {
    char bus_id_legacy[16];
    u32 domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;

static void write_bus_id(int gpu, char *out) {
    char usual[32];
    snprintf(usual, sizeof usual, "00000000:%02X:00.0", gpu + 1);
    gpu_text(gpu, "bus_id", usual, out, 32);
}

status nvmlDeviceGetPciInfo_v3(device *d, pci_info *out) {
    ENTER(d);
    memset(out, 0, sizeof *out);
    out->bus = (u32)d->gpu + 1;
    write_bus_id(d->gpu, out->bus_id);
    return SUCCESS;
}

NUMBER(nvmlDeviceGetArchitecture, u32, "arch", 9)
NUMBER(nvmlDeviceGetNumGpuCores, u32, "cores", 16896)
NUMBER(nvmlDeviceGetNumaNodeId, u32, "numa", 0)
NUMBER(nvmlDeviceGetMemoryBusWidth, u32, "mem_bus", 5120)
NUMBER(nvmlDeviceGetPersistenceMode, u32, "persistence", 1)
NUMBER(nvmlDeviceGetComputeMode, u32, "compute_mode", 0)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, u32, "pcie_gen_max", 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, u32, "pcie_width_max", 16)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, u32, "power_limit_mw", 700000)
NUMBER(nvmlDeviceGetPowerManagementLimit, u32, "power_limit_mw", 700000)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, u32, "power_limit_default_mw", 700000)

status nvmlDeviceGetPowerManagementLimitConstraints(device *d, u32 *least, u32 *most) {
    ENTER(d);
    *least = (u32)gpu_number(d->gpu, "power_limit_min_mw", 200000);
    *most = (u32)gpu_number(d->gpu, "power_limit_max_mw", 700000);
    return SUCCESS;
}

status nvmlDeviceGetEccMode(device *d, u32 *now, u32 *next) {
    ENTER(d);
    *now = *next = (u32)gpu_number(d->gpu, "ecc", 1);
    return SUCCESS;
}

status nvmlDeviceGetMaxClockInfo(device *d, int clock, u32 *out) {
    char field[32];
    ENTER(d);
    snprintf(field, sizeof field, "max_clock%d", clock);
    *out = (u32)gpu_number(d->gpu, field, clock == 2 ? 2619 : 1980);
    return SUCCESS;
}

/* --- memory ----------------------------------------------------------------------------------------------- */

typedef struct { u64 total, free, used; } memory_v1;
typedef struct { u32 version; u64 total, reserved, free, used; } memory_v2;

static memory_v1 memory_of(const device *d) {
    u64 total = gpu_number(d->gpu, d->mig < 0 ? "mem_total" : "mig_mem_total", d->mig < 0 ? 80ull << 30 : 10ull << 30);
    u64 used = gpu_number(d->gpu, "mem_used", 3ull << 30);
    return (memory_v1){total, total - used, used};
}

status nvmlDeviceGetMemoryInfo(device *d, memory_v1 *out) {
    ENTER(d);
    *out = memory_of(d);
    return SUCCESS;
}

status nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *out) {
    ENTER(d);
    memory_v1 memory = memory_of(d);
    out->total = memory.total;
    out->reserved = gpu_number(d->gpu, "mem_reserved", 0);
    out->free = memory.free;
    out->used = memory.used;
    return SUCCESS;
}

status nvmlDeviceGetBAR1MemoryInfo(device *d, memory_v1 *out) {
    ENTER(d);
    u64 total = gpu_number(d->gpu, "bar1_total", 128ull << 30);
    *out = (memory_v1){total, total, 0};
    return SUCCESS;
}

/* --- links ------------------------------------------------------------------------------------------------ */

static int has_link(const device *d, u32 link) { return link < gpu_number(d->gpu, "nvlinks", 0); }

status nvmlDeviceGetNvLinkState(device *d, u32 link, u32 *out) {
    char field[32];
    ENTER(d);
    if (!has_link(d, link)) return gpu_number(d->gpu, "nvlinks", 0) ? INVALID_ARGUMENT : NOT_SUPPORTED;
    snprintf(field, sizeof field, "links.%u.active", link);
    *out = (u32)gpu_number(d->gpu, field, 1);
    return SUCCESS;
}

status nvmlDeviceGetNvLinkVersion(device *d, u32 link, u32 *out) {
    ENTER(d);
    if (!has_link(d, link)) return NOT_SUPPORTED;
    *out = (u32)gpu_number(d->gpu, "nvlink_version", 4);
    return SUCCESS;
}

status nvmlDeviceGetNvLinkRemotePciInfo_v2(device *d, u32 link, pci_info *out) {
    char field[32];
    ENTER(d);
    if (!has_link(d, link)) return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    snprintf(field, sizeof field, "links.%u.peer", link);
    gpu_text(d->gpu, field, "00000000:FF:00.0", out->bus_id, sizeof out->bus_id);
    return SUCCESS;
}

status nvmlDeviceGetTopologyCommonAncestor(device *a, device *b, u32 *out) {
    char key[64];
    ENTER(a);
    snprintf(key, sizeof key, "topology.%d.%d", a->gpu, b->gpu);
    *out = (u32)number(key, 50);
    return SUCCESS;
}

/* --- multi-instance --------------------------------------------------------------------------------------- */

NUMBER(nvmlDeviceGetMaxMigDeviceCount, u32, "mig_count", 0)

status nvmlDeviceGetMigMode(device *d, u32 *now, u32 *next) {
    ENTER(d);
    *now = *next = gpu_number(d->gpu, "mig_count", 0) > 0;
    return SUCCESS;
}

status nvmlDeviceGetMigDeviceHandleByIndex(device *d, u32 index, device **out) {
    char field[32];
    ENTER(d);
    snprintf(field, sizeof field, "mig%u.free", index);
    if (index >= MOST_MIGS || index >= gpu_number(d->gpu, "mig_count", 0) || gpu_number(d->gpu, field, 0))
        return NOT_FOUND;
    migs[d->gpu][index] = (device){d->gpu, (int)index};
    *out = &migs[d->gpu][index];
    return SUCCESS;
}

status nvmlDeviceGetGpuInstanceId(device *d, u32 *out) {
    ENTER(d);
    if (d->mig < 0) return NOT_SUPPORTED;
    *out = (u32)d->mig + 1;
    return SUCCESS;
}

status nvmlDeviceGetComputeInstanceId(device *d, u32 *out) {
    ENTER(d);
    if (d->mig < 0) return NOT_SUPPORTED;
    *out = 0;
    return SUCCESS;
}

/* --- what a device does now ------------------------------------------------------------------------------- */

typedef struct { u64 reference_us, violation_ns; } violation;

/* Nanoseconds for which policy N held the clocks back: gpu0.violation.N */
status nvmlDeviceGetViolationStatus(device *d, int policy, violation *out) {
    char field[32];
    ENTER(d);
    if (policy < 0 || policy > 5) return INVALID_ARGUMENT;
    snprintf(field, sizeof field, "violation.%d", policy);
    *out = (violation){0, gpu_number(d->gpu, field, 0)};
    return SUCCESS;
}

NUMBER(nvmlDeviceGetPowerUsage, u32, "power_mw", 250000)
NUMBER(nvmlDeviceGetFanSpeed, u32, "fan", 30)
NUMBER(nvmlDeviceGetPerformanceState, u32, "pstate", 0)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, u32, "pcie_gen", 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, u32, "pcie_width", 16)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, u64, "throttle", 0)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, u64, "throttle", 0)

status nvmlDeviceGetUtilizationRates(device *d, u32 *out) {
    ENTER(d);
    if (d->mig >= 0) return NOT_SUPPORTED;
    out[0] = (u32)gpu_number(d->gpu, "util", 87);
    out[1] = (u32)gpu_number(d->gpu, "mem_util", 41);
    return SUCCESS;
}

status nvmlDeviceGetTemperature(device *d, int sensor, u32 *out) {
    (void)sensor;
    ENTER(d);
    *out = (u32)gpu_number(d->gpu, "temp", 64);
    return SUCCESS;
}

typedef struct { u32 version; int sensor, temperature; } temperature_v1;

status nvmlDeviceGetTemperatureV(device *d, temperature_v1 *out) {
    ENTER(d);
    out->temperature = (int)gpu_number(d->gpu, "temp", 64);
    return SUCCESS;
}

status nvmlDeviceGetClockInfo(device *d, int clock, u32 *out) {
    char field[32];
    ENTER(d);
    snprintf(field, sizeof field, "clock%d", clock);
    *out = (u32)gpu_number(d->gpu, field, clock == 2 ? 2619 : 1980);
    return SUCCESS;
}

/* Millijoules since some moment: `power_mw` over time, or `energy_mj` where it is set. */
status nvmlDeviceGetTotalEnergyConsumption(device *d, u64 *out) {
    struct timespec now;
    ENTER(d);
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    *out = gpu_number(d->gpu, "energy_mj", (u64)((double)gpu_number(d->gpu, "power_mw", 250000) * seconds));
    return SUCCESS;
}

status nvmlDeviceGetPcieThroughput(device *d, int counter, u32 *out) {
    ENTER(d);
    *out = (u32)gpu_number(d->gpu, counter ? "pcie_rx_kbs" : "pcie_tx_kbs", 1000);
    return SUCCESS;
}

status nvmlDeviceGetTotalEccErrors(device *d, int type, int counter, u64 *out) {
    (void)counter;
    ENTER(d);
    *out = gpu_number(d->gpu, type ? "ecc_uncorrected" : "ecc_corrected", 0);
    return SUCCESS;
}

status nvmlDeviceGetRemappedRows(device *d, u32 *corrected, u32 *uncorrected, u32 *is_pending, u32 *has_failed) {
    ENTER(d);
    *corrected = (u32)gpu_number(d->gpu, "remapped_corrected", 0);
    *uncorrected = (u32)gpu_number(d->gpu, "remapped_uncorrected", 0);
    *is_pending = (u32)gpu_number(d->gpu, "remap_pending", 0);
    *has_failed = (u32)gpu_number(d->gpu, "remap_failed", 0);
    return SUCCESS;
}

status nvmlDeviceGetRetiredPages(device *d, int cause, u32 *count, u64 *out) {
    ENTER(d);
    u32 found = (u32)gpu_number(d->gpu, cause ? "retired_double" : "retired_single", 0), room = *count;
    *count = found;
    if (found > room) return INSUFFICIENT_SIZE;
    for (u32 i = 0; out && i < found; i++) out[i] = 0x1000ull * (i + 1);
    return SUCCESS;
}

#define CODER(function, field)                                        \
    status function(device *d, u32 *out, u32 *period_us) {            \
        ENTER(d);                                                     \
        *out = (u32)gpu_number(d->gpu, field, 0);                     \
        *period_us = 100000;                                          \
        return SUCCESS;                                               \
    }

CODER(nvmlDeviceGetEncoderUtilization, "encoder")
CODER(nvmlDeviceGetDecoderUtilization, "decoder")

typedef struct {
    u32 field, scope;
    int64_t timestamp, latency_us;
    int type;
    status code;
    union { double real; u32 small; u64 large; } value;
} field_value;

status nvmlDeviceGetFieldValues(device *d, int count, field_value *values) {
    ENTER(d);
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        v->code = SUCCESS;
        if (v->field == 82) {
            v->type = 1;
            v->value.small = (u32)gpu_number(d->gpu, "mem_temp", 71);
        } else if (v->field >= 74 && v->field <= 79 && gpu_number(d->gpu, "violation_fields", 0)) {
            char name[32];
            snprintf(name, sizeof name, "violation.%u", (unsigned)v->field - 74);
            v->type = 3;
            v->value.large = gpu_number(d->gpu, name, 0);
        } else if ((v->field == 270 || v->field == 271) && gpu_number(d->gpu, "slowdown_counters", 1)) {
            v->type = 3;
            v->value.large = gpu_number(d->gpu, v->field == 270 ? "hw_thermal_ns" : "power_brake_ns", 0);
        } else if ((v->field == 138 || v->field == 139) && v->scope == ~0u && has_link(d, 0)) {
            v->type = 3;
            v->value.large = gpu_number(d->gpu, v->field == 138 ? "nvlink_tx_kib" : "nvlink_rx_kib", 0);
        } else {
            v->code = NOT_SUPPORTED;
        }
    }
    return SUCCESS;
}

/* --- activity counters ------------------------------------------------------------------------------------ */

typedef struct { const device *of; u32 instance; u64 taken; } gpm_sample;
typedef struct { u32 id; status code; double value; const char *names[3]; } gpm_metric;
typedef struct { u32 version, count; gpm_sample *first, *second; gpm_metric metrics[]; } gpm_request;
typedef struct { u32 version, is_supported; } gpm_support;

static u64 gpm_clock;

status nvmlGpmQueryDeviceSupport(device *d, gpm_support *out) {
    ENTER(d);
    out->is_supported = gpu_number(d->gpu, "gpm", 1) != 0;
    return SUCCESS;
}

status nvmlGpmSampleAlloc(gpm_sample **out) {
    ENTER(NULL);
    *out = calloc(1, sizeof **out);
    return SUCCESS;
}

status nvmlGpmSampleFree(gpm_sample *sample) {
    free(sample);
    return SUCCESS;
}

status nvmlGpmSampleGet(device *d, gpm_sample *sample) {
    ENTER(d);
    if (gpu_number(d->gpu, "mig_count", 0)) return NOT_SUPPORTED;
    *sample = (gpm_sample){d, 0, ++gpm_clock};
    return SUCCESS;
}

status nvmlGpmMigSampleGet(device *d, u32 instance, gpm_sample *sample) {
    ENTER(d);
    if (instance == 0 || instance > gpu_number(d->gpu, "mig_count", 0)) return INVALID_ARGUMENT;
    *sample = (gpm_sample){d, instance, ++gpm_clock};
    return SUCCESS;
}

status nvmlGpmMetricsGet(gpm_request *request) {
    const gpm_sample *a = request->first, *b = request->second;
    char key[64], value[64];
    ENTER(NULL);
    if (request->version != 1 || a->of != b->of || a->instance != b->instance || a->taken >= b->taken)
        return INVALID_ARGUMENT;
    for (u32 i = 0; i < request->count; i++) {
        gpm_metric *m = &request->metrics[i];
        snprintf(key, sizeof key, "gpu%d.gpm.%u", a->of->gpu, m->id);
        int is_set = look_up(key, value, sizeof value);
        m->code = is_set && !strcmp(value, "none") ? NOT_SUPPORTED : SUCCESS;
        m->value = is_set ? strtod(value, NULL) : (double)m->id;
    }
    return SUCCESS;
}

/* --- events ----------------------------------------------------------------------------------------------- */

typedef struct { int is_wanted[MOST_GPUS]; u64 told[MOST_GPUS]; } event_set;
typedef struct { device *of; u64 type, data; u32 gpu_instance, compute_instance; } event;

status nvmlEventSetCreate(event_set **out) {
    ENTER(NULL);
    *out = calloc(1, sizeof **out);
    return SUCCESS;
}

status nvmlDeviceRegisterEvents(device *d, u64 types, event_set *set) {
    ENTER(d);
    set->is_wanted[d->gpu] = (types & 8) != 0;
    set->told[d->gpu] = gpu_number(d->gpu, "xid_seq", 0);
    return SUCCESS;
}

status nvmlEventSetWait_v2(event_set *set, event *out, u32 timeout_ms) {
    (void)timeout_ms;
    ENTER(NULL);
    for (int gpu = 0; gpu < MOST_GPUS; gpu++) {
        if (!set->is_wanted[gpu] || set->told[gpu] >= gpu_number(gpu, "xid_seq", 0)) continue;
        set->told[gpu]++;
        *out = (event){&gpus[gpu], 8, gpu_number(gpu, "xid", 79), ~0u, ~0u};
        return SUCCESS;
    }
    return TIMEOUT;
}

status nvmlEventSetFree(event_set *set) {
    free(set);
    return SUCCESS;
}

/* --- processes -------------------------------------------------------------------------------------------- */

typedef struct { u32 pid; u64 used; u32 gpu_instance, compute_instance; } process_info;

static status list_processes(const char *function, device *d, u32 *count, process_info *out, const char *field) {
    char text[2048], *next = text;
    u32 found = 0, room = out ? *count : 0;
    status code = enter(function, d, 1);
    if (code) return code;
    gpu_text(d->gpu, field, "", text, sizeof text);
    while (*next) {
        process_info process = {(u32)strtoul(next, &next, 10), (u64)-1, ~0u, ~0u};
        if (*next == ':') process.used = (u64)strtoll(next + 1, &next, 10);
        if (*next == ':') process.gpu_instance = (u32)strtoul(next + 1, &next, 10);
        if (*next == ':') process.compute_instance = (u32)strtoul(next + 1, &next, 10);
        if (found < room) out[found] = process;
        found++;
        if (*next++ != ',') break;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

status nvmlDeviceGetComputeRunningProcesses_v3(device *d, u32 *count, process_info *out) {
    return list_processes(__func__, d, count, out, "procs");
}

status nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, u32 *count, process_info *out) {
    return list_processes(__func__, d, count, out, "gprocs");
}
