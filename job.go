package redoubt

import (
	"context"
	"io"
	"time"
)

// JobID names one job for good: 32 hex digits, drawn at random.
type JobID string

// JobState says how far a job is. Who does not dominate the job's MAX sees JobSubmitted alone.
type JobState string

// The states of a job. JobDone, JobFailed and JobCanceled are final.
const (
	JobSubmitted JobState = "submitted"
	JobRunning   JobState = "running"
	JobDone      JobState = "done"   // it ended with exit code 0, and its outputs are there
	JobFailed    JobState = "failed" // none of its outputs are
	JobCanceled  JobState = "canceled"
)

// Final says whether a job of this state has ended for good.
func (s JobState) Final() bool { return s == JobDone || s == JobFailed || s == JobCanceled }

// Limits of jobs.
const (
	MaxModuleBytes   = 256 << 20 // of a WebAssembly module
	MaxJobSpecBytes  = 128 << 10 // of what a job is submitted with, as JSON
	MaxJobInputs     = 64
	MaxJobOutputs    = 10_000  // files of one job
	MaxJobLogBytes   = 8 << 20 // of what it writes to standard output and standard error; the rest is counted and dropped
	MaxJobRetries    = 10
	MaxJobTime       = 7 * 24 * time.Hour
	DefaultJobTime   = time.Hour
	MaxJobsListed    = 1000
	MaxJobListed     = 100_000   // entries of one directory under /in
	MaxJobsDay       = 100_000   // that one START submits in a day, UTC
	MaxJobsDayBytes  = 256 << 20 // of their specifications
	MaxJobsKept      = 200_000   // of one START; for one more the oldest goes, whatever became of it
	MaxJobsKeptBytes = 1 << 30   // of what they were submitted with
	MaxJobMemory     = 64 << 30
	MaxJobDisk       = 64 << 30
	MaxJobProcesses  = 32768
	MaxJobCPUs       = 1024
	MaxSchedules     = 1000 // of one label
	ModuleLife       = 30 * 24 * time.Hour
	JobLife          = 90 * 24 * time.Hour // from its submission, until nothing tells of a job any more but the audit log and its outputs
	DefaultJobMemory = 512 << 20
	DefaultJobDisk   = 1 << 30
)

// SubmitJob asks for a job. One of Module and Image is set.
type SubmitJob struct {
	Module  string     `json:"module,omitempty"`  // SHA-256 of a WebAssembly module that was put before (PutModule), hex
	Image   string     `json:"image,omitempty"`   // BUCKET/NAME:TAG or BUCKET/NAME@sha256:DIGEST of this node's registry
	Args    []string   `json:"args,omitempty"`    // without the program's own name
	Env     []string   `json:"env,omitempty"`     // NAME=VALUE
	In      []JobInput `json:"in,omitempty"`      // what is under /in
	Out     JobInput   `json:"out,omitzero"`      // where what is written under /out goes; no bucket: nowhere
	Max     string     `json:"max,omitempty"`     // marking: how far it may rise; "": not above START
	Seconds int64      `json:"seconds,omitempty"` // that one attempt may run; DefaultJobTime
	Retries int        `json:"retries,omitempty"` // further attempts after one that failed
	Limits  JobLimits  `json:"limits,omitzero"`
	Driver  string     `json:"driver,omitempty"`  // "": that of the estate for this kind of program
	Network []string   `json:"network,omitempty"` // destinations of the node that it may reach, by their names; none: no network
	From    string     `json:"from,omitempty"`    // what started it: "schedule NAME" or "trigger NAME"; told, not asked for
}

// JobInput is a part of a bucket: every key that begins with Prefix.
type JobInput struct {
	Bucket BucketName `json:"bucket"`
	Prefix string     `json:"prefix,omitempty"`
}

// JobLimits bound what one attempt may use; 0 is the default beside it. There is no "unlimited".
type JobLimits struct {
	Memory    int64   `json:"memory,omitempty"`    // bytes; DefaultJobMemory
	CPUs      float64 `json:"cpus,omitempty"`      // processors at once; 1
	Processes int     `json:"processes,omitempty"` // and threads; 256
	Disk      int64   `json:"disk,omitempty"`      // bytes that it may have written under /out and in its own root at once, and that its outputs have; DefaultJobDisk
}

// Job is a job as its reader may see it. What follows State is for who dominates Max, and empty for others.
type Job struct {
	ID    JobID       `json:"id"`
	By    SubjectName `json:"by"`
	Made  time.Time   `json:"made"`
	Start string      `json:"start"` // banner
	Max   string      `json:"max"`   // banner
	Spec  SubmitJob   `json:"spec"`
	State JobState    `json:"state"`

	Label    string      `json:"label,omitempty"` // banner of START and all that it has read, as far as it is known
	Attempt  int         `json:"attempt,omitempty"`
	Began    time.Time   `json:"began,omitzero"` // the last attempt
	Ended    time.Time   `json:"ended,omitzero"`
	ExitCode int         `json:"exit_code"`     // of the last attempt; -1 where it did not end by itself
	Why      string      `json:"why,omitempty"` // of one that failed: the reason, and what to do
	Outputs  []JobOutput `json:"outputs,omitempty"`
	LogBytes int64       `json:"log_bytes,omitempty"` // also of what was dropped
}

// JobOutput is a version that a job has written.
type JobOutput struct {
	Key     string    `json:"key"`
	Version VersionID `json:"version"`
	Bytes   int64     `json:"size"`
}

// ListJobs selects jobs; zero fields do not restrict.
type ListJobs struct {
	State JobState
	After JobID // exclusive, in the order of the list
	Max   int
}

// JobService is what people do with jobs. Every method is decided and recorded. A job whose START the credential does not dominate is NotFound,
// in the words for one that never was.
type JobService interface {
	// PutModule keeps a WebAssembly module at the working label under its SHA-256 in hex, for ModuleLife. BadDigest: it has another.
	PutModule(ctx context.Context, who Credential, digest string, module io.Reader) error
	// HasModule says whether a module is there that the working label dominates.
	HasModule(ctx context.Context, who Credential, digest string) (bool, error)
	SubmitJob(ctx context.Context, who Credential, q SubmitJob) (Job, error)
	// Jobs lists newest first, without their outputs; fewer than were asked for where they were submitted with much.
	Jobs(ctx context.Context, who Credential, q ListJobs) ([]Job, error)
	Job(ctx context.Context, who Credential, id JobID) (Job, error)
	// WaitJob is Job once its state is not the one given, for who dominates MAX; for others it is Denied. It gives the job as it is when ctx ends.
	WaitJob(ctx context.Context, who Credential, id JobID, not JobState) (Job, error)
	// JobLog gives what the job's last attempt has written from a byte on, up to a bound; next is where it goes on, and more that it may. It
	// waits for something where there is nothing yet and wait is set. Denied: the credential does not dominate MAX.
	JobLog(ctx context.Context, who Credential, id JobID, from int64, wait bool) (text []byte, next int64, more bool, err error)
	// CancelJob ends one. It takes who submitted it, at START or at MAX.
	CancelJob(ctx context.Context, who Credential, id JobID) error
}

// JobFile is what a job sees of something under /in.
type JobFile struct {
	Name     string    `json:"name"` // the last element of its path
	Dir      bool      `json:"dir,omitempty"`
	Bytes    int64     `json:"size,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

// JobFiles is what lies under /in: BUCKET/KEY, as it stood when the job was submitted. Each method raises the job's label by what it tells, before
// it tells it. NotFound is for what is not there, and in the same words for what lies beyond MAX. Paths are slash-separated, without a leading
// slash; "" is /in itself. All methods may be called at once.
type JobFiles interface {
	// List tells of what a directory holds, in order of names. TooLarge: it holds more than MaxJobListed.
	List(ctx context.Context, dir string) ([]JobFile, error)
	Stat(ctx context.Context, path string) (JobFile, error)
	// Open opens a file. Ranges of it are read by one goroutine at a time.
	Open(ctx context.Context, path string) (JobFile, Content, error)
}

// JobRun is one attempt of a job, as who runs it is given it. Its label rises with what is read through it, and what is put carries that.
type JobRun interface {
	JobFiles
	Job() Job
	// Share names subject, START and MAX: sandboxes, their memory and caches that a job can write serve one share (RULES 5.2).
	Share() string
	// Module opens the WebAssembly module.
	Module(ctx context.Context) (Content, int64, error)
	// Object opens a version that belongs to the program itself (a layer of its image) at START: it counts as read.
	Object(ctx context.Context, name ObjectName) (Version, Content, error)
	// Names gives the keys of a bucket that begin with a prefix, at most so many, in order: of what belongs to the program, as START sees it now.
	Names(ctx context.Context, bucket BucketName, prefix string, most int) ([]string, error)
	// Lane is that of JobDesk.NextJob.
	Lane() string
	// Kept and Keep hold what was made of the program before it ran, and may be needed again: sealed, at MAX, for the share. NotFound: nothing is.
	Kept(ctx context.Context, name string) ([]byte, error)
	Keep(ctx context.Context, name string, content []byte) error
	// Dial connects to a destination that the job was submitted with (SubmitJob.Network). First the job rises to the destination's label. The connection
	// ends when the job rises beyond that, and with the attempt. NotFound: it is none of the job's, or not any more. Denied: the job has risen beyond it.
	// Unavailable: it does not answer.
	Dial(ctx context.Context, to string) (JobConn, error)
	// Log takes what the program writes to standard output (1) and standard error (2). It takes everything, and keeps MaxJobLogBytes.
	Log(stream int, text []byte)
	// Put takes one output, once the program has ended; after the first nothing is read any more. Nothing of it shows before Finish. TooLarge: all
	// outputs together have more bytes than the job may have on disk.
	Put(ctx context.Context, path string, size int64, content io.Reader) error
	// Canceled ends when somebody ends the job, or may no longer have it run; of an instance of a service, when what it has read was taken out.
	Canceled() <-chan struct{}
	// Finish makes the attempt's end and, where it did well, all its outputs durable and visible at once; of an instance it says that it has ended.
	// Nothing may be called after it.
	Finish(ctx context.Context, x JobExit) error
}

// JobExit is how an attempt ended.
type JobExit struct {
	Code  int    // -1: it did not end by itself
	Why   string // where Code is not 0, or outputs cannot be taken: the reason, and what to do
	Retry bool   // it was no fault of the program: it is begun anew; with a Why only so often, without one (a node that stops) always
}

// JobDesk is what an engine that runs jobs is handed of an enclave.
type JobDesk interface {
	// NextJob waits for a job that is to run, and begins an attempt of it. One that was running when the enclave stopped comes again, or is
	// reported where that has happened too often. accept says what can be run now: lane tells apart the jobs of different MAX, so that none waits
	// for what goes on above it. Whoever accepts more than it did before calls Retry.
	NextJob(ctx context.Context, accept func(lane string, q SubmitJob) bool) (JobRun, error)
	Retry()
}

// ScheduleName names what starts jobs: 1 to 63 of a-z, 0-9 and "-".
type ScheduleName string

// Schedule starts jobs at times, or on new versions. It belongs to the subject that made it and to its working label, which is START of them all.
type Schedule struct {
	Name    ScheduleName `json:"name"`
	By      SubjectName  `json:"by"`
	Label   string       `json:"label"`          // banner
	Cron    string       `json:"cron,omitempty"` // five fields, UTC
	On      *JobInput    `json:"on,omitempty"`   // a new version there that Label dominates; its name and ID are in REDOUBT_KEY, REDOUBT_BUCKET and REDOUBT_VERSION
	Job     SubmitJob    `json:"job"`
	Made    time.Time    `json:"made"`
	Last    time.Time    `json:"last,omitzero"` // when it started one last
	LastJob JobID        `json:"last_job,omitempty"`
	Next    time.Time    `json:"next,omitzero"`
	Fault   string       `json:"fault,omitempty"` // why it could not start the last one
}

// ScheduleService is what people do with schedules. A schedule is seen by who dominates its label, changed and removed by who made it at that label.
type ScheduleService interface {
	PutSchedule(ctx context.Context, who Credential, s Schedule) (Schedule, error)
	Schedules(ctx context.Context, who Credential) ([]Schedule, error)
	RemoveSchedule(ctx context.Context, who Credential, name ScheduleName) error
}
