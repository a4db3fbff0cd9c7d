package replica

import "testing"

func TestAPieceIsAsLargeAsTheRoadIsFast(t *testing.T) {
	for rate, want := range map[float64]int{0: pieceBytes, 16_000: leastPiece, 100_000: 10_000, 1_000_000: 100_000, 1e9: mostPieceBytes} {
		if got := (&Session{o: Options{Rate: func() float64 { return rate }}}).pieceSize(); got != want {
			t.Errorf("at %v bytes a second a piece has %d bytes, want %d", rate, got, want)
		}
	}
	if got := (&Session{}).pieceSize(); got != pieceBytes {
		t.Errorf("on a road of which nothing is known a piece has %d bytes", got)
	}
}
