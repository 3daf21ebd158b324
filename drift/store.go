package drift

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Store keeps states of Monitors in one file (bbolt), across restarts. What Save
// returned from is on disk, and a process killed in the middle of Save leaves what
// was there before.
type Store struct{ db *bbolt.DB }

var bucket = []byte("drift.1")

// OpenStore opens a store, made if need be. Only one process at a time can have it open.
func OpenStore(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("drift: %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("drift: %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("drift: %s: %w", path, errors.Join(err, db.Close()))
	}
	return &Store{db}, nil
}

// Save writes states by name, all or none.
func (s *Store) Save(states map[string]State) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for name, state := range states {
			text, err := json.Marshal(state)
			if err != nil {
				return fmt.Errorf("drift: %s: %w", name, err)
			}
			if err := tx.Bucket(bucket).Put([]byte(name), text); err != nil {
				return fmt.Errorf("drift: %s: %w", name, err)
			}
		}
		return nil
	})
}

// Load reads a state; ok is false if there is none of that name.
func (s *Store) Load(name string) (state State, ok bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		text := tx.Bucket(bucket).Get([]byte(name))
		if text == nil {
			return nil
		}
		ok = true
		return json.Unmarshal(text, &state)
	})
	if err != nil {
		return State{}, false, fmt.Errorf("drift: stored state %s: %w", name, err)
	}
	return state, ok, nil
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.db.Close() }
