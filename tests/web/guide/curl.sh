curl -X POST "http://localhost:8080/predict_batch" \
  -F "files=@patient1_xray.jpg" \
  -F "files=@patient2_xray.jpg" \
  -F "files=@patient3_xray.jpg"
